import { compareCodePoints, ConfigError } from '@q/config';
import { dtypeBytes, dtypes, type DType } from '@q/tensor';
import { maxHeaderBytes } from '../limits.js';
import { storedRank } from './dtypes.js';

/** A tensor to be written: its data comes later. Row-major, little endian. */
export interface TensorSpec {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** Size of a tensor's data in bytes. */
export const specBytes = ({ dtype, shape }: TensorSpec): number =>
  shape.reduce((product, size) => product * size, 1) * dtypeBytes(dtype);

/** A tensor with its place in the data area of its file. */
export interface PlacedTensor extends TensorSpec {
  readonly begin: number;
  readonly end: number;
}

/**
 * Tensors as the safetensors library orders them: by dtype, wide ones first, then by name. Offsets follow from that.
 */
export function placeTensors(specs: readonly TensorSpec[]): PlacedTensor[] {
  const sorted = [...specs].sort(
    (a, b) => storedRank(b.dtype) - storedRank(a.dtype) || compareCodePoints(a.name, b.name),
  );
  let at = 0;
  return sorted.map(({ name, dtype, shape }) => {
    const begin = at;
    at += specBytes({ name, dtype, shape });
    return { name, dtype, shape, begin, end: at };
  });
}

/** Throws ConfigError unless a spec can be written. */
export function checkSpec(spec: TensorSpec): void {
  const { name, dtype, shape } = spec;
  if (name === '' || name === '__metadata__' || /\p{Surrogate}/u.test(name))
    throw new ConfigError('safetensors', 'this name cannot be given to a tensor', { tensor: name });
  if (!Object.hasOwn(dtypes, dtype)) throw new ConfigError('safetensors', 'unknown dtype', { tensor: name, dtype });
  if (!shape.every((size) => Number.isSafeInteger(size) && size >= 0) || !Number.isSafeInteger(specBytes(spec))) {
    throw new ConfigError('safetensors', 'this shape cannot be written', { tensor: name, shape });
  }
}

/**
 * The first bytes of a safetensors file: header length, then the JSON header padded with spaces to a multiple of 8.
 * Equal, byte for byte, to what the safetensors library writes for the same tensors and metadata.
 */
export function serializeHeader(
  tensors: readonly PlacedTensor[],
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array<ArrayBuffer> {
  const parts = tensors.map(
    ({ name, dtype, shape, begin, end }) =>
      `${JSON.stringify(name)}:{"dtype":"${dtypes[dtype].safetensors}","shape":[${shape.join(',')}],"data_offsets":[${begin},${end}]}`,
  );
  if (Object.keys(metadata).length > 0) parts.unshift(`"__metadata__":${JSON.stringify(metadata)}`);
  const json = new TextEncoder().encode(`{${parts.join(',')}}`);
  const padded = Math.ceil(json.length / 8) * 8;
  if (padded > maxHeaderBytes)
    throw new ConfigError('safetensors', 'the header gets too long', {
      bytes: padded,
      limit: maxHeaderBytes,
      fix: 'write fewer tensors per file: lower maxShardSize',
    });
  const bytes = new Uint8Array(8 + padded).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(padded), true);
  bytes.set(json, 8);
  return bytes;
}
