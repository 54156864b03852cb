import { DTypeError, ELEMENT_TYPES, type DTypeName } from '@q/config';

const element = <T extends DTypeName>(code: number, torch: T) => ({ code, ...ELEMENT_TYPES[torch], torch });

/** Element types. Codes are those of the native ABI (native/q_ops.h). */
export const dtypes = {
  f32: element(0, 'float32'),
  f16: element(1, 'float16'),
  bf16: element(2, 'bfloat16'),
  i8: element(3, 'int8'),
  u8: element(4, 'uint8'),
  i32: element(5, 'int32'),
  i64: element(6, 'int64'),
  bool: element(7, 'bool'),
};

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
