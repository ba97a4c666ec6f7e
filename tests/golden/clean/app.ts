export const load = async (id: string) => {
  return fetch(id);
};

/** A view. */
export class View {
  private name = "a";

  constructor(name: string) {
    this.name = name;
  }

  render(): void {
    if (this.name) {
      draw();
    }
  }
}

function draw() {
  return 1;
}
