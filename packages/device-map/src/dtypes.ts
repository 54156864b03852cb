import { DTypeError, isDTypeName, dtypeBytes as elementBytes } from '@q/config';

const special: Readonly<Record<string, number>> = {
  bool: 1 / 8,
  int2: 1 / 4,
  int4: 1 / 2,
  fp8: 1,
  float8_e4m3fn: 1,
  float8_e5m2: 1,
  float8_e4m3fnuz: 1,
  float8_e5m2fnuz: 1,
  float8_e8m0fnu: 1,
};

/**
 * Bytes of one element as accelerate counts them: bool is 1/8 byte, int2 1/4, int4 1/2; otherwise the bits at the end
 * of the name.
 * @throws DTypeError when the name does not end in a number of bits
 */
export const dtypeBytes = (dtype: string): number => {
  const known = special[dtype];
  if (known !== undefined) return known;
  const bits = /[^\d](\d+)$/.exec(dtype)?.[1];
  if (bits === undefined) {
    throw new DTypeError('dtypeBytes', 'not a data type with a known size', {
      dtype,
      fix: 'use a name such as float16, bfloat16, int8 or int4',
    });
  }
  return Math.floor(Number(bits) / 8);
};

/** Bytes of one element as it is stored: a bool takes a whole byte. @throws DTypeError as {@link dtypeBytes} */
export const storedBytes = (dtype: string): number => (isDTypeName(dtype) ? elementBytes(dtype) : dtypeBytes(dtype));

/** Loading casts floating-point tensors only. */
export const isFixedDtype = (dtype: string): boolean => /^(uint|int|bool)/.test(dtype);
