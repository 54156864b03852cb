import { CheckpointError, UnsupportedError } from '@q/config';
import type { Checkpoint } from '../checkpoint.js';
import { maxQuantStateBytes } from '../limits.js';
import type { TensorEntry } from '../safetensors/header.js';
import { bnb4bitNames, bnbInt8Names, type Bnb4bitType } from './names.js';
import { parseQuantState, type QuantState } from './quant-state.js';

/** Where a checkpoint keeps a weight, and in which of the formats of bitsandbytes (or plainly). */
export type StoredWeight = StoredDense | StoredBnb4bit | StoredBnbInt8;

export interface StoredDense {
  readonly format: 'dense';
  readonly weight: TensorEntry;
}

export interface StoredBnb4bit {
  readonly format: 'bnb-4bit';
  readonly quantType: Bnb4bitType;
  /** Whether the absmax are quantized too. */
  readonly nested: boolean;
  /** Packed codes: ceil(elements / 2) bytes, high nibble first, of whatever storage dtype. */
  readonly weight: TensorEntry;
  /** f32 [blocks], or u8 [blocks] when nested. */
  readonly absmax: TensorEntry;
  readonly quantMap: TensorEntry;
  readonly nestedAbsmax?: TensorEntry;
  readonly nestedQuantMap?: TensorEntry;
  readonly quantState: TensorEntry;
}

export interface StoredBnbInt8 {
  readonly format: 'bnb-int8';
  /** i8 [out, in] */
  readonly weight: TensorEntry;
  /** f32 [out] */
  readonly scb: TensorEntry;
  /** u8 scalar; absent in files of early versions, which are row major. */
  readonly weightFormat?: TensorEntry;
}

const op = 'bitsandbytes';
/** The part of a Checkpoint that recognition needs. */
export type TensorLookup = Pick<Checkpoint, 'has' | 'tensor'>;

/**
 * Which tensors form the weight of this name, told by names, dtypes and shapes alone; nothing is read.
 * @param parameter full name, `model.layers.0.mlp.up_proj.weight`
 * @throws CheckpointError naming the tensor when there is no such weight, parts are missing or do not fit together.
 */
export function recogniseWeight(checkpoint: TensorLookup, parameter: string): StoredWeight {
  const types = (['nf4', 'fp4'] as const).filter((type) =>
    checkpoint.has(bnb4bitNames(parameter, type, true).quantState),
  );
  if (types.length === 2)
    throw new CheckpointError(op, 'a weight has a state of nf4 and of fp4', { tensor: parameter });
  const weight = checkpoint.tensor(parameter);
  if (types.length === 1) return recognise4bit(checkpoint, weight, types[0]);
  const stray = Object.values(bnb4bitNames(parameter, 'nf4', true)).find(
    (name) => name !== parameter && checkpoint.has(name),
  );
  if (stray)
    throw new CheckpointError(op, 'a 4-bit weight has no quantization state', {
      file: weight.file,
      tensor: parameter,
      found: stray,
      fix: 'save the model with bitsandbytes 0.42 or later',
    });
  return recogniseInt8(checkpoint, weight) ?? { format: 'dense', weight };
}

function recognise4bit(checkpoint: TensorLookup, weight: TensorEntry, quantType: Bnb4bitType): StoredBnb4bit {
  const names = bnb4bitNames(weight.name, quantType, true);
  const need = (name: string): TensorEntry => {
    if (!checkpoint.has(name))
      throw new CheckpointError(op, 'a part of a 4-bit weight is missing', {
        file: weight.file,
        tensor: name,
        weight: weight.name,
      });
    return checkpoint.tensor(name);
  };
  const nested = checkpoint.has(names.nestedAbsmax as string) || checkpoint.has(names.nestedQuantMap as string);
  const stored: StoredBnb4bit = {
    format: 'bnb-4bit',
    quantType,
    nested,
    weight,
    absmax: need(names.absmax),
    quantMap: need(names.quantMap),
    quantState: need(names.quantState),
    ...(nested
      ? { nestedAbsmax: need(names.nestedAbsmax as string), nestedQuantMap: need(names.nestedQuantMap as string) }
      : {}),
  };
  expectTensor(stored.absmax, nested ? 'u8' : 'f32');
  expectTensor(stored.quantMap, 'f32', 16);
  expectTensor(stored.quantState, 'u8');
  if (stored.quantState.bytes > maxQuantStateBytes)
    throw new CheckpointError(op, 'the quantization state is absurdly long', {
      file: stored.quantState.file,
      tensor: stored.quantState.name,
      bytes: stored.quantState.bytes,
    });
  if (stored.nestedAbsmax && stored.nestedQuantMap) {
    expectTensor(stored.nestedAbsmax, 'f32');
    expectTensor(stored.nestedQuantMap, 'f32', 256);
  }
  return stored;
}

function recogniseInt8(checkpoint: TensorLookup, weight: TensorEntry): StoredBnbInt8 | undefined {
  if (!weight.name.endsWith('.weight')) return undefined;
  const names = bnbInt8Names(weight.name.slice(0, -'.weight'.length));
  if (!checkpoint.has(names.scb)) {
    if (weight.dtype === 'i8')
      throw new CheckpointError(op, 'an int8 weight has no scales', {
        file: weight.file,
        tensor: weight.name,
        missing: names.scb,
      });
    return undefined;
  }
  const scb = checkpoint.tensor(names.scb);
  if (weight.dtype !== 'i8' || weight.shape.length !== 2) {
    throw new CheckpointError(op, 'a weight with int8 scales is no i8 matrix', {
      file: weight.file,
      tensor: weight.name,
      dtype: weight.dtype,
      shape: weight.shape,
    });
  }
  expectTensor(scb, 'f32', weight.shape[0]);
  const weightFormat = checkpoint.has(names.weightFormat) ? checkpoint.tensor(names.weightFormat) : undefined;
  if (weightFormat) expectTensor(weightFormat, 'u8', 1);
  return { format: 'bnb-int8', weight, scb, ...(weightFormat ? { weightFormat } : {}) };
}

function expectTensor(entry: TensorEntry, dtype: string, elements = entry.elements): void {
  if (entry.dtype === dtype && entry.elements === elements) return;
  throw new CheckpointError(op, 'a part of a quantized weight has the wrong type or size', {
    file: entry.file,
    tensor: entry.name,
    dtype: entry.dtype,
    shape: entry.shape,
    expectedDtype: dtype,
    expectedElements: elements,
  });
}

/**
 * Reads the quantization state of a 4-bit weight and checks every size against it.
 * @throws CheckpointError naming file and tensor.
 */
export async function read4bitState(
  checkpoint: Pick<Checkpoint, 'read'>,
  stored: StoredBnb4bit,
  options: { signal?: AbortSignal } = {},
): Promise<QuantState> {
  const { file, name: tensor } = stored.quantState;
  const state = parseQuantState(await checkpoint.read(stored.quantState, options), { file, tensor });
  check4bitSizes(stored, state);
  return state;
}

/** Throws CheckpointError unless the parts of a 4-bit weight have the sizes that its state asks for. */
export function check4bitSizes(stored: StoredBnb4bit, state: QuantState): void {
  const place = { file: stored.quantState.file, tensor: stored.quantState.name };
  if (state.quantType !== stored.quantType)
    throw new CheckpointError(op, 'the quantization state and its name disagree', {
      ...place,
      quant_type: state.quantType,
    });
  if (Boolean(state.nested) !== stored.nested) {
    throw new CheckpointError(op, 'the quantization state and the tensors disagree about double quantization', {
      ...place,
      state: Boolean(state.nested),
      tensors: stored.nested,
    });
  }
  const elements = state.shape.reduce((product, size) => product * size, 1);
  const blocks = Math.ceil(elements / state.blockSize);
  const size = (entry: TensorEntry, got: number, expected: number, unit: string) => {
    if (got === expected) return;
    throw new CheckpointError(op, 'a part of a 4-bit weight has the wrong size', {
      file: entry.file,
      tensor: entry.name,
      [unit]: got,
      expected,
      shape: state.shape,
      blocksize: state.blockSize,
    });
  };
  size(stored.weight, stored.weight.bytes, Math.ceil(elements / 2), 'bytes');
  size(stored.absmax, stored.absmax.elements, blocks, 'elements');
  if (state.nested && stored.nestedAbsmax)
    size(stored.nestedAbsmax, stored.nestedAbsmax.elements, Math.ceil(blocks / state.nested.blockSize), 'elements');
}

/** Throws unless an int8 weight is stored row by row (`weight_format` 0); older layouts were made for certain GPUs. */
export function checkWeightFormat(stored: StoredBnbInt8, bytes: Uint8Array): void {
  if (bytes.length === 1 && bytes[0] === 0) return;
  throw new UnsupportedError(op, 'this layout of int8 weights cannot be read', {
    file: stored.weight.file,
    tensor: stored.weightFormat?.name,
    weight_format: bytes[0],
    why: 'only 0 (row major) is supported',
    fix: 'save the model with bitsandbytes 0.45 or later',
  });
}
