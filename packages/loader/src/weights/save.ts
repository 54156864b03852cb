import { CheckpointError, UnsupportedError } from '@q/config';
import { dtypeBytes, type ParameterSlot } from '@q/tensor';
import type { StoredTensor } from '../formats/format.js';
import { formatOfWeight } from '../formats/registry.js';
import { fromDevice } from '../formats/stored-tensor.js';
import { groupBy } from '../group-by.js';
import type { TensorSpec } from '../safetensors/serialize.js';
import { copyInTurns, gridOf } from '../strided.js';
import { isShared, isWhole, placeOf, usualSource, wholeShape, type Part } from './sources.js';

export type { StoredTensor } from '../formats/format.js';

/** A tensor of a checkpoint to be written; of one that parameters make up together, the bytes come in pieces. */
export interface SavedTensor extends TensorSpec {
  readonly bytes: () => Promise<Uint8Array> | AsyncIterable<Uint8Array>;
}

const op = 'save';

type Owned = Part & { readonly slot: ParameterSlot };

/**
 * The tensors of a checkpoint that holds these slots as they are, named and laid out as their sources say; tied weights
 * are left out.
 * @throws UnsupportedError for a quantized weight that files keep together with others; CheckpointError for weights of
 *   two dtypes that files keep together. Nothing is read from the device then.
 */
export async function storedTensors(slots: readonly ParameterSlot[]): Promise<SavedTensor[]> {
  const parts = slots.flatMap((slot): Owned[] => {
    const { name: parameter, shape, tiedTo } = slot;
    return tiedTo === undefined ? [{ slot, parameter, shape, source: usualSource(slot) }] : [];
  });
  const tensors: SavedTensor[] = [];
  for (const [name, own] of groupBy(parts, ({ source }) => source.name)) {
    const alone = own.length === 1 ? await storedAlone(name, own[0]) : undefined;
    tensors.push(...(alone ?? [await composed(name, own)]));
  }
  return tensors;
}

/** A parameter that is a tensor as it is, or in a format that has tensors of its own; undefined when it is neither. */
async function storedAlone(name: string, { slot, source }: Owned): Promise<StoredTensor[] | undefined> {
  if (slot.kind === 'tensor') return isWhole(source) ? [fromDevice(name, slot.current())] : undefined;
  const weight = slot.current();
  const format = formatOfWeight(weight);
  const takesAsIs = isWhole(source) || (format.config !== undefined && !isShared(source));
  if (!takesAsIs) return undefined;
  const module = name.endsWith('.weight') ? name.slice(0, -'.weight'.length) : slot.module;
  return format.write({ ...slot, name, module }, weight);
}

/** The values of a part. @throws UnsupportedError when it is quantized */
async function valuesOf(name: string, { slot }: Owned): Promise<StoredTensor> {
  if (slot.kind === 'tensor') return fromDevice(name, slot.current());
  const weight = slot.current();
  const format = formatOfWeight(weight);
  if (format.config === undefined) return (await format.write(slot, weight))[0];
  throw new UnsupportedError(op, `${slot.name} is quantized, and files keep it in a tensor with others`, {
    tensor: name,
    why: 'a quantized weight has codes and scales of its own, which Python reads for a layer alone',
    fix: 'save the model without quantizing it, and quantize it whenever it is loaded',
  });
}

type Valued = Part & { readonly values: StoredTensor };

/** A tensor that several parameters make up, or one that is stored the other way round. */
async function composed(name: string, own: readonly Owned[]): Promise<SavedTensor> {
  const shape = wholeShape(name, own);
  const parts: Valued[] = [];
  for (const part of own) parts.push({ ...part, values: await valuesOf(name, part) });
  const [first] = parts;
  const { dtype } = first.values;
  const other = parts.find(({ values }) => values.dtype !== dtype);
  if (other)
    throw new CheckpointError(op, 'parameters that files keep in one tensor have two dtypes', {
      tensor: name,
      [first.parameter]: dtype,
      [other.parameter]: other.values.dtype,
    });
  return { name, dtype, shape, bytes: () => matrices(parts, shape) };
}

/** The bytes of a composed tensor, one of its stack at a time. */
async function* matrices(parts: readonly Valued[], shape: readonly number[]): AsyncGenerator<Uint8Array> {
  const width = dtypeBytes(parts[0].values.dtype);
  const stacked = parts[0].source.index !== undefined;
  const matrix = stacked ? shape.slice(1) : shape;
  const elements = matrix.reduce((a, b) => a * b, 1);
  const groups = groupBy(parts, ({ source }) => source.index ?? 0);
  for (let index = 0; index < groups.size; index++) {
    const bytes = new Uint8Array(elements * width);
    for (const { source, values, shape: own } of groups.get(index)!) {
      const grid = gridOf(own);
      const { start, strides } = placeOf({ ...source, index: undefined }, matrix);
      const from = { bytes: await values.bytes(), start: 0, strides: [grid[1], 1] } as const;
      await copyInTurns(grid, width, from, { bytes, start, strides });
    }
    yield bytes;
  }
}
