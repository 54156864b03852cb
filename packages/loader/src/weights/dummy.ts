import { add, fill, fillRandom, type Backend, type FloatDType, type ParameterSlot, type Tensor } from '@q/tensor';
import { keepDense, type Quantizer } from './quantize.js';

/**
 * Fills the slots with random weights of the right shapes and formats, without a checkpoint (`loadFormat: 'dummy'`): for measuring.
 * Matrices are N(0, 1 / k), vectors are ones plus a little noise, so that activations keep their size.
 */
export async function loadDummy(slots: readonly ParameterSlot[], options: { backend: Backend; dtype: FloatDType; quantizer?: Quantizer; signal?: AbortSignal; seed?: number }): Promise<void> {
  const { backend, dtype, quantizer = keepDense, signal, seed = 0 } = options;
  const loaded = new Map<string, Tensor>();
  for (const [index, slot] of slots.entries()) {
    signal?.throwIfAborted();
    const width = slot.shape[slot.shape.length - 1];
    const random = (out: Tensor) => {
      if (slot.shape.length === 1) fillOnes(out, seed + index);
      else fillRandom(out, { kind: 'normal', seed: seed + index, scale: width ** -0.5 });
      return out;
    };
    if (slot.kind === 'tensor') {
      const tensor = random(backend.allocate(slot.shape, dtype));
      slot.load(tensor);
      loaded.set(slot.name, tensor);
    } else if (slot.tiedTo !== undefined) {
      slot.load({ kind: 'dense', shape: slot.shape, values: loaded.get(slot.tiedTo)! }, { shared: true });
    } else {
      const quantize = quantizer(slot);
      if (quantize) backend.scope(() => slot.load(quantize(random(backend.empty(slot.shape, dtype)))));
      else slot.load({ kind: 'dense', shape: slot.shape, values: random(backend.allocate(slot.shape, dtype)).keep() });
    }
    await backend.flush();
  }
  backend.trim();
}

/** Sums are computed in the activation dtype of the device, and rounded to the dtype of the weights. */
function fillOnes(out: Tensor, seed: number): void {
  const { backend } = out;
  backend.scope(() => {
    const [noise, ones] = [0, 1].map(() => backend.empty(out.shape, backend.caps.activationDtypes[0]));
    fillRandom(noise, { kind: 'uniform', seed, scale: 0.1 });
    fill(ones, 1);
    backend.submit('cast', { x: add(noise, ones).ref(), out: out.ref() });
  });
}
