import { DTypeError } from './errors.js';

/** The element types of Q, in one spelling; the same words as in `config.json`. */
export type DTypeName = 'float32' | 'float16' | 'bfloat16' | 'int8' | 'uint8' | 'int32' | 'int64' | 'bool';

/** What is known of each element type: its bytes, and its name in safetensors files. */
export const ELEMENT_TYPES = Object.freeze({
  float32: { bytes: 4, safetensors: 'F32' },
  float16: { bytes: 2, safetensors: 'F16' },
  bfloat16: { bytes: 2, safetensors: 'BF16' },
  int8: { bytes: 1, safetensors: 'I8' },
  uint8: { bytes: 1, safetensors: 'U8' },
  int32: { bytes: 4, safetensors: 'I32' },
  int64: { bytes: 8, safetensors: 'I64' },
  bool: { bytes: 1, safetensors: 'BOOL' },
} as const satisfies Record<DTypeName, { bytes: number; safetensors: string }>);

const ALIASES: Readonly<Record<string, DTypeName>> = Object.freeze({
  float: 'float32',
  single: 'float32',
  fp32: 'float32',
  f32: 'float32',
  half: 'float16',
  fp16: 'float16',
  f16: 'float16',
  bf16: 'bfloat16',
  i8: 'int8',
  u8: 'uint8',
  byte: 'uint8',
  i32: 'int32',
  int: 'int32',
  i64: 'int64',
  long: 'int64',
  boolean: 'bool',
});

/** Every dtype name, in the order of the type. */
export const DTYPE_NAMES: readonly DTypeName[] = Object.freeze(Object.keys(ELEMENT_TYPES) as DTypeName[]);

const isName = (word: string): word is DTypeName => Object.hasOwn(ELEMENT_TYPES, word);

/** Whether a value is a canonical dtype name (no alias). */
export const isDTypeName = (value: unknown): value is DTypeName => typeof value === 'string' && isName(value);

/**
 * Reads a dtype: a canonical name, a `torch.` name, or one of the usual short forms (`fp16`, `half`, `bf16`, `F32`,
 * `long` ...).
 * @throws DTypeError for any other value
 */
export function parseDType(value: unknown, op = 'dtype'): DTypeName {
  const word =
    typeof value === 'string'
      ? value
          .trim()
          .toLowerCase()
          .replace(/^torch\./, '')
      : '';
  if (isName(word)) return word;
  if (Object.hasOwn(ALIASES, word)) return ALIASES[word];
  throw new DTypeError(op, 'unknown dtype', { got: value, fix: `use one of ${DTYPE_NAMES.join(', ')}` });
}

/** Bytes of one element of a dtype (names and aliases as in `parseDType`). @throws DTypeError for an unknown name */
export const dtypeBytes = (dtype: DTypeName): number => ELEMENT_TYPES[parseDType(dtype, 'dtypeBytes')].bytes;
