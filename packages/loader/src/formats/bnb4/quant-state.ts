import { CheckpointError, PythonFloat, pythonJson, UnsupportedError } from '@q/config';
import { parseDType, type FloatDType, isFloat, dtypes } from '@q/tensor';
import { maxRank } from '../../limits.js';
import { scanJson } from '../../safetensors/json-text.js';
import type { Bnb4bitType } from './names.js';

/** What `weight.quant_state.bitsandbytes__nf4|fp4` says of a 4-bit weight. */
export interface QuantState {
  readonly quantType: Bnb4bitType;
  /** Weights per absmax; a power of two from 32 to 4096. */
  readonly blockSize: number;
  /** Element type of the weight before it was quantized, and after it is dequantized. */
  readonly dtype: FloatDType;
  /** Shape of the weight before it was packed, [out, in] for a Linear. */
  readonly shape: readonly number[];
  /** Double quantization: absmax are codes of 8 bits, `value = map[code] * nestedAbsmax[block] + offset`. */
  readonly nested?: {
    readonly blockSize: number;
    /** Element type of the absmax themselves; bitsandbytes writes float32. */
    readonly dtype: FloatDType;
    readonly offset: number;
  };
}

const op = 'bitsandbytes';
const isBlock = (value: unknown, least: number): value is number =>
  typeof value === 'number' &&
  Number.isInteger(value) &&
  value >= least &&
  value <= 4096 &&
  Number.isInteger(Math.log2(value));

type Fail = (what: string, detail?: Record<string, unknown>) => never;

function parseJson(text: string | Uint8Array, fail: Fail): Record<string, unknown> {
  let json: unknown;
  let raw: string;
  try {
    raw = typeof text === 'string' ? text : new TextDecoder('utf-8', { fatal: true }).decode(text);
    json = JSON.parse(raw);
  } catch (cause) {
    return fail('is not valid JSON', { cause });
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return fail('is not a JSON object');
  const { duplicate, tooDeep } = scanJson(raw);
  if (duplicate !== undefined) fail('has a key twice', { key: duplicate });
  if (tooDeep) fail('is nested too deeply', { why: tooDeep });
  return json as Record<string, unknown>;
}

function floatOf(value: unknown, key: string, fail: Fail): FloatDType {
  const known =
    typeof value === 'string' && Object.values(dtypes).some((d) => d.torch === value) ? parseDType(value) : undefined;
  return known && isFloat(known) ? known : fail('has an unknown dtype', { [key]: value });
}

function shapeOf(shape: unknown, fail: Fail): number[] {
  const sizes = Array.isArray(shape) && shape.length <= maxRank ? (shape as unknown[]) : undefined;
  const counts = sizes?.every((size): size is number => Number.isSafeInteger(size) && (size as number) >= 0);
  if (!sizes || !counts || !Number.isSafeInteger((sizes as number[]).reduce((a, b) => a * b, 1)))
    return fail('has an impossible shape', { shape });
  return sizes as number[];
}

/**
 * Reads a quantization state.
 * @param text the tensor's bytes, or their text
 * @param place file and tensor, for errors
 * @throws CheckpointError naming file and tensor when it is not what bitsandbytes writes; UnsupportedError for keys
 *   that this version does not know, because they could change the meaning.
 */
export function parseQuantState(text: string | Uint8Array, place: { file: string; tensor: string }): QuantState {
  const fail: Fail = (what, detail = {}) => {
    throw new CheckpointError(op, `the quantization state ${what}`, { ...place, ...detail });
  };
  const {
    quant_type: quantType,
    blocksize: blockSize,
    dtype,
    shape,
    nested_blocksize,
    nested_dtype,
    nested_offset,
    ...unknown
  } = parseJson(text, fail);
  const keys = Object.keys(unknown);
  if (keys.length > 0) throw new UnsupportedError(op, 'the quantization state has unknown keys', { ...place, keys });
  if (quantType !== 'nf4' && quantType !== 'fp4') return fail('has an unknown quant_type', { quant_type: quantType });
  if (!isBlock(blockSize, 32)) return fail('has an impossible blocksize', { blocksize: blockSize });
  const plain = { quantType, blockSize, dtype: floatOf(dtype, 'dtype', fail), shape: shapeOf(shape, fail) } as const;
  if ([nested_blocksize, nested_dtype, nested_offset].every((value) => value === undefined)) return plain;
  if (!isBlock(nested_blocksize, 32)) return fail('has an impossible nested_blocksize', { nested_blocksize });
  if (typeof nested_offset !== 'number' || !Number.isFinite(nested_offset))
    return fail('has no finite nested_offset', { nested_offset });
  const nestedDType = floatOf(nested_dtype, 'nested_dtype', fail);
  return { ...plain, nested: { blockSize: nested_blocksize, dtype: nestedDType, offset: nested_offset } };
}

/** The text of a quantization state, byte for byte as bitsandbytes writes it (`json.dumps`, its order of keys). */
export function formatQuantState(state: QuantState): string {
  const { quantType, blockSize, dtype, shape, nested } = state;
  return pythonJson({
    quant_type: quantType,
    blocksize: blockSize,
    dtype: dtypes[dtype].torch,
    shape: [...shape],
    ...(nested
      ? {
          nested_blocksize: nested.blockSize,
          nested_dtype: dtypes[nested.dtype].torch,
          nested_offset: new PythonFloat(nested.offset),
        }
      : {}),
  });
}
