import {
  copy,
  denseWeight,
  fill,
  fillRandom,
  type Backend,
  type FloatDType,
  type ParameterSlot,
  type Shape,
  type Tensor,
} from '@q/tensor';
import { inFp32, type PrecisionOptions } from './precision.js';
import { keepDense, type Quantizer } from './quantize.js';

export interface DummyOptions extends PrecisionOptions {
  readonly backend: Backend;
  readonly dtype: FloatDType;
  readonly quantizer?: Quantizer;
  readonly signal?: AbortSignal;
  readonly seed?: number;
}

/**
 * Fills the slots with random weights of the right shapes and formats, without a checkpoint (`loadFormat: 'dummy'`):
 * for measuring. Matrices are N(0, 1 / k), vectors are ones, so that activations keep their size; matrices of one shape
 * have the same values, each in memory of its own.
 */
export async function loadDummy(slots: readonly ParameterSlot[], options: DummyOptions): Promise<void> {
  const { backend, dtype, quantizer = keepDense, signal } = options;
  const patterns = new Patterns(options);
  const precise = inFp32(options);
  const dense = (slot: ParameterSlot) => patterns.copyOf(slot.shape, precise(slot) ? 'f32' : dtype);
  const loaded = new Map<string, Tensor>();
  try {
    for (const slot of slots) {
      signal?.throwIfAborted();
      const quantize = slot.kind === 'linear' ? quantizer(slot) : undefined;
      if (slot.kind === 'tensor' && slot.tiedTo !== undefined) slot.load(loaded.get(slot.tiedTo)!, { shared: true });
      else if (slot.kind === 'tensor') {
        const tensor = dense(slot);
        slot.load(tensor);
        loaded.set(slot.name, tensor);
      } else if (slot.tiedTo !== undefined) slot.load(denseWeight(loaded.get(slot.tiedTo)!), { shared: true });
      else if (quantize) backend.scope(() => slot.load(quantize(patterns.of(slot.shape, dtype))));
      else slot.load(denseWeight(dense(slot).keep()));
      await backend.flush();
    }
  } finally {
    patterns.dispose();
    backend.trim();
  }
}

/** One random tensor for each shape and dtype, made when it is first needed. */
class Patterns {
  readonly #made = new Map<string, Tensor>();

  constructor(private readonly options: DummyOptions) {}

  of(shape: Shape, dtype: FloatDType): Tensor {
    const key = `${dtype} ${shape.join()}`;
    const known = this.#made.get(key);
    if (known) return known;
    const { backend, seed = 0 } = this.options;
    const made = backend.empty(shape, dtype).keep();
    if (shape.length === 1) fill(made, 1);
    else fillRandom(made, { kind: 'normal', seed: seed + this.#made.size, scale: shape[shape.length - 1] ** -0.5 });
    this.#made.set(key, made);
    return made;
  }

  copyOf(shape: Shape, dtype: FloatDType): Tensor {
    const out = this.options.backend.allocate(shape, dtype);
    copy(this.of(shape, dtype), out);
    return out;
  }

  dispose(): void {
    for (const tensor of this.#made.values()) tensor.dispose();
  }
}
