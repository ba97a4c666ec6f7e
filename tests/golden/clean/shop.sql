-- Orders of a shop, 订单
CREATE TABLE IF NOT EXISTS shop.orders (
    id INTEGER PRIMARY KEY
);

create or replace function total(x int) returns int as $$
  select x;
$$ language sql;

INSERT INTO shop.orders VALUES (1);
