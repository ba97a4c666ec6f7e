/* A queue. */
#include <stdio.h>

#define MAX(a, b) ((a) > (b) ? (a) : (b))

struct queue {
    int items[16];
};

int queue_size(const struct queue *queue);

/* Put one in.
 * 放入一个。 */
static int queue_put(struct queue *queue,
                     int item)
{
    if (item == 0) {
        return -1;
    }
    return 0;
}
