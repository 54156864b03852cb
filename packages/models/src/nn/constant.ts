import type { Backend, Shape, Tensor } from '@q/tensor';

/** A table on the device that follows from a model alone: made when first needed, kept until the model goes. */
export class Constant {
  #tensor: Tensor | undefined;

  /** @param make the table, in the current scope */
  constructor(private readonly make: (backend: Backend) => Tensor) {}

  on(backend: Backend): Tensor {
    return (this.#tensor ??= this.make(backend).keep());
  }

  dispose(): void {
    this.#tensor?.dispose();
    this.#tensor = undefined;
  }
}

/** A table of float32 numbers; large ones as a function, called when the table is made. */
export const constantOf = (values: Float32Array | (() => Float32Array), shape: Shape): Constant =>
  new Constant((backend) => {
    const table = backend.allocate(shape, 'f32');
    backend.assign(table, typeof values === 'function' ? values() : values);
    return table;
  });
