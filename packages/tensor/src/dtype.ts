import { DTypeError } from '@q/config';

/** Element types. Codes are those of the native ABI (native/q_ops.h). */
export const dtypes = {
  f32: { code: 0, bytes: 4, safetensors: 'F32', torch: 'float32' },
  f16: { code: 1, bytes: 2, safetensors: 'F16', torch: 'float16' },
  bf16: { code: 2, bytes: 2, safetensors: 'BF16', torch: 'bfloat16' },
  i8: { code: 3, bytes: 1, safetensors: 'I8', torch: 'int8' },
  u8: { code: 4, bytes: 1, safetensors: 'U8', torch: 'uint8' },
  i32: { code: 5, bytes: 4, safetensors: 'I32', torch: 'int32' },
  i64: { code: 6, bytes: 8, safetensors: 'I64', torch: 'int64' },
  bool: { code: 7, bytes: 1, safetensors: 'BOOL', torch: 'bool' },
} as const;

export type DType = keyof typeof dtypes;
export type FloatDType = 'f32' | 'f16' | 'bf16';

const names = Object.keys(dtypes) as DType[];

export const dtypeBytes = (dtype: DType): number => dtypes[dtype].bytes;

export const isFloat = (dtype: DType): dtype is FloatDType => dtype === 'f32' || dtype === 'f16' || dtype === 'bf16';

export const dtypeFromCode = (code: number): DType => names[code];

/**
 * The dtype of a name as safetensors (`BF16`), torch (`bfloat16`, `torch.bfloat16`) or Q (`bf16`) writes it.
 * @throws DTypeError for any other name.
 */
export function parseDType(name: string): DType {
  const bare = name.replace(/^torch\./, '');
  const found = names.find(
    (dtype) => dtype === bare || dtypes[dtype].torch === bare || dtypes[dtype].safetensors === bare,
  );
  if (!found) {
    throw new DTypeError('dtype', `"${name}" is no known element type`, { fix: `use one of ${names.join(', ')}` });
  }
  return found;
}
