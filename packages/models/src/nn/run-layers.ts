import { checkFinite, type Tensor } from '@q/tensor';
import type { Pass } from '../pass/pass.js';

/**
 * Runs layers one after the other, each in a scope of its own: between two of them only x lives. Every model's layers
 * run here: it is the place for what happens between layers, whatever they are. All of them are on the device of x; a
 * hop to another device belongs here, and is where a recorded step is cut into segments.
 * @param x [T, C]; disposed
 * @param name of the list, for reports: layer i is `name.i`
 * @param forward layer i: x [T, C] to the same shape
 */
export function runLayers<L>(
  layers: readonly L[],
  x: Tensor,
  { hiddenStates }: Pass,
  name: string,
  forward: (layer: L, x: Tensor, index: number) => Tensor,
): Tensor {
  const wanted = hiddenStates !== undefined;
  hiddenStates?.push(x.keep());
  return layers.reduce((before, layer, index) => {
    const after = before.backend.scope(() => forward(layer, before, index));
    if (!wanted) before.dispose();
    hiddenStates?.push(after.keep());
    return checkFinite(after, `${name}.${index}`);
  }, x);
}
