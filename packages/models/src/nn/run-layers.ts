import { checkFinite, type Tensor } from '@q/tensor';

/**
 * Runs layers one after the other, each in a scope of its own: between two of them only x lives.
 * @param x [T, C]; disposed
 * @param name of the list, for reports: layer i is `name.i`
 * @param forward layer i: x [T, C] to the same shape
 */
export function runLayers<L>(
  layers: readonly L[],
  x: Tensor,
  name: string,
  forward: (layer: L, x: Tensor, index: number) => Tensor,
): Tensor {
  return layers.reduce((before, layer, index) => {
    const after = before.backend.scope(() => forward(layer, before, index));
    before.dispose();
    return checkFinite(after, `${name}.${index}`);
  }, x);
}
