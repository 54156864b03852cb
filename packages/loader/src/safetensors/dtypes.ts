import { dtypes, type DType } from '@q/tensor';

/**
 * Element types of the safetensors format in the library's own order (the order of its `Dtype` enum, which is also
 * the order by which it sorts tensors on disk, last first), with the bits of those that Q does not compute with.
 */
const types: readonly (readonly [name: string, bits?: number])[] = [
  ['BOOL'],
  ['F4', 4],
  ['F6_E2M3', 6],
  ['F6_E3M2', 6],
  ['U8'],
  ['I8'],
  ['F8_E5M2', 8],
  ['F8_E4M3', 8],
  ['F8_E8M0', 8],
  ['I16', 16],
  ['U16', 16],
  ['F16'],
  ['BF16'],
  ['I32'],
  ['U32', 32],
  ['F32'],
  ['C64', 64],
  ['F64', 64],
  ['I64'],
  ['U64', 64],
];

const byStoredName = new Map<string, DType>(
  (Object.keys(dtypes) as DType[]).map((dtype) => [dtypes[dtype].safetensors, dtype]),
);
const info = new Map(
  types.map(([name, width], rank) => {
    const dtype = byStoredName.get(name);
    const bits = dtype ? 8 * dtypes[dtype].bytes : width!;
    return [name, { bits, rank, dtype }] as const;
  }),
);

/**
 * What is known of a safetensors dtype name: its width in bits, its rank on disk, and Q's dtype where Q computes with
 * it. `undefined` for a name that the format does not have.
 */
export const storedDType = (name: string) => info.get(name);

/** Position of a dtype in the safetensors order; tensors are written by falling rank, then by name. */
export const storedRank = (dtype: DType): number => {
  const known = info.get(dtypes[dtype].safetensors);
  return known ? known.rank : -1;
};
