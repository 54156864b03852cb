import { CheckpointError } from '@q/config';
import type { Checkpoint } from '../../checkpoint.js';
import { maxQuantStateBytes } from '../../limits.js';
import type { TensorEntry } from '../../safetensors/header.js';
import { expectTensor } from '../bitsandbytes/parts.js';
import type { StoredBase, TensorLookup } from '../format.js';
import { bnb4bitNames, type Bnb4bitType } from './names.js';
import { parseQuantState, type QuantState } from './quant-state.js';

export interface StoredBnb4bit extends StoredBase {
  readonly format: 'bnb4';
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

const op = 'bitsandbytes';

/**
 * The tensors of a 4-bit weight; undefined when it is none.
 * @throws CheckpointError naming the tensor when parts are missing or do not fit together
 */
export function recogniseBnb4bit(checkpoint: TensorLookup, weight: TensorEntry): StoredBnb4bit | undefined {
  const { name: parameter } = weight;
  const types = (['nf4', 'fp4'] as const).filter((type) =>
    checkpoint.has(bnb4bitNames(parameter, type, true).quantState),
  );
  if (types.length === 2)
    throw new CheckpointError(op, 'a weight has a state of nf4 and of fp4', { tensor: parameter });
  if (types.length === 1) return withParts(checkpoint, weight, types[0]);
  const stray = Object.values(bnb4bitNames(parameter, 'nf4', true)).find(
    (name) => name !== parameter && checkpoint.has(name),
  );
  if (stray === undefined) return undefined;
  throw new CheckpointError(op, 'a 4-bit weight has no quantization state', {
    file: weight.file,
    tensor: parameter,
    found: stray,
    fix: 'save the model with bitsandbytes 0.42 or later',
  });
}

function withParts(checkpoint: TensorLookup, weight: TensorEntry, quantType: Bnb4bitType): StoredBnb4bit {
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
    format: 'bnb4',
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

/**
 * Reads the quantization state of a 4-bit weight and checks every size against it.
 * @throws CheckpointError naming file and tensor.
 */
export async function read4bitState(
  checkpoint: Pick<Checkpoint, 'read'>,
  stored: StoredBnb4bit,
  options: { signal?: AbortSignal } = {},
): Promise<QuantState> {
  return check4bitState(stored, await checkpoint.read(stored.quantState, options));
}

/** The quantization state from its bytes, checked against the parts of the weight. @throws CheckpointError */
export function check4bitState(stored: StoredBnb4bit, bytes: Uint8Array): QuantState {
  const { file, name: tensor } = stored.quantState;
  const state = parseQuantState(bytes, { file, tensor });
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
