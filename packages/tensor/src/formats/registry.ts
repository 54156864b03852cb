import type { Tensor } from '../core/tensor.js';
import { bnb4 } from './bnb4/bnb4.js';
import { dense } from './dense/dense.js';
import type { WeightFormat } from './format.js';
import { int8 } from './int8/int8.js';

/** Every format that a weight can have on a device; a new one is a folder and a row here. */
export const weightFormats = [dense, bnb4, int8] as const;

type WeightOf<F> = F extends WeightFormat<infer W> ? W : never;

/** The weight of a linear layer, in any format. */
export type Weight = WeightOf<(typeof weightFormats)[number]>;

const byKind: ReadonlyMap<string, WeightFormat<Weight>> = new Map(
  weightFormats.map((format) => [format.kind, format as WeightFormat<Weight>]),
);

/** The format of a weight. */
export const formatOf = (weight: Weight): WeightFormat<Weight> => byKind.get(weight.kind)!;

/** What people call the format of a weight: `dense`, `nf4`, `fp4`, `int8`. */
export const weightLabel = (weight: Weight): string => formatOf(weight).label(weight);

/** The weight with another tensor in the place of each that it owns, such as a copy on another device. */
export const mapWeight = (weight: Weight, replace: (tensor: Tensor) => Tensor): Weight =>
  formatOf(weight).map(weight, replace);

/** Device tensors of a weight. */
export function weightTensors(weight: Weight): Tensor[] {
  const tensors: Tensor[] = [];
  mapWeight(weight, (tensor) => {
    tensors.push(tensor);
    return tensor;
  });
  return tensors;
}

/** Bytes of a weight on its device, scales included. */
export const weightBytes = (weight: Weight): number =>
  weightTensors(weight).reduce((sum, tensor) => sum + tensor.bytes, 0);

/** Bytes of a weight as Python's `get_memory_footprint()` counts them. */
export const weightFootprint = (weight: Weight): number => formatOf(weight).footprint(weight);

/** Tensors with the float scales of a weight; none for a dense one. */
export const weightScales = (weight: Weight): Tensor[] => formatOf(weight).scales(weight);

export function disposeWeight(weight: Weight): void {
  for (const tensor of weightTensors(weight)) tensor.dispose();
}
