import { ConfigError } from '@q/config';
import { dtypes, type DType, type FloatDType } from '../../dtype.js';
import { quantTypes, type QuantType } from '../../driver/schema.js';
import type { Backend } from '../../core/backend.js';
import type { Tensor } from '../../core/tensor.js';
import { checkFloat, checkShape } from '../../ops/check.js';
import type { StoredWeight, WeightFormat } from '../format.js';
import { codebooks, dynamicMap } from './codebooks.js';

/** Absmax of a 4-bit weight kept in 8 bits ("double quantization", Dettmers et al. 2023, section 3). */
export interface NestedAbsmax {
  /** u8 [blocks]. */
  readonly codes: Tensor;
  /** f32 [ceil(blocks / blockSize)]. */
  readonly absmax: Tensor;
  /** f32 [256]. */
  readonly codebook: Tensor;
  /** f32 [1]: mean of the absmax, subtracted before quantization. */
  readonly offset: Tensor;
  readonly blockSize: number;
}

/** NF4 or FP4 in bitsandbytes' layout: codes u8 [ceil(n k / 2)], the high nibble first. */
export interface Bnb4Weight extends StoredWeight {
  readonly kind: 'bnb4';
  readonly quantType: QuantType;
  readonly blockSize: number;
  readonly codes: Tensor;
  /** f32 [blocks], or nested. */
  readonly absmax: Tensor | NestedAbsmax;
  /** Dtype of the weight before quantization; what dequantization gives. */
  readonly dtype: DType;
  /** Dtype of the product on CUDA. */
  readonly computeDtype: DType;
}

export const bnb4BlockSizes = [64, 128, 256, 512, 1024, 2048, 4096] as const;
/** Blocks of absmax that share a nested absmax. */
export const nestedBlockSize = 256;

export interface Bnb4Options {
  quantType: QuantType;
  /** Values per absmax; one of {@link bnb4BlockSizes}. Default 64. */
  blockSize?: number;
  /** Keep the absmax in 8 bits. Default false. */
  doubleQuant?: boolean;
  /** Default f32. */
  computeDtype?: DType;
}

const blocksOf = (count: number, blockSize: number) => Math.ceil(count / blockSize);

/** Exact bytes of a quantized weight of `count` values: codes, absmax and, when nested, its tables. */
export function bnb4Bytes(
  count: number,
  { blockSize = 64, doubleQuant = false }: Pick<Bnb4Options, 'blockSize' | 'doubleQuant'> = {},
): number {
  const blocks = blocksOf(count, blockSize);
  const codes = Math.ceil(count / 2);
  return doubleQuant
    ? codes + blocks + 4 * blocksOf(blocks, nestedBlockSize) + 4 * dynamicMap.length + 4
    : codes + 4 * blocks;
}

/**
 * Quantizes a float weight [n, k] block by block over the flattened values: absmax of each block, then the nearest code
 * of x / absmax; bit-equal to bitsandbytes' CUDA kernels.
 * @throws ConfigError for a block size that bitsandbytes does not have.
 */
export function quantizeBnb4(
  weight: Tensor,
  { quantType, blockSize = 64, doubleQuant = false, computeDtype = 'f32' }: Bnb4Options,
): Bnb4Weight {
  checkFloat('quantize4bit', 'weight', weight);
  checkShape('quantize4bit', 'weight', weight, ['n', 'k']);
  if (!(bnb4BlockSizes as readonly number[]).includes(blockSize)) {
    throw new ConfigError('quantize4bit', `block size ${blockSize} is not supported`, {
      fix: `use one of ${bnb4BlockSizes.join(', ')}`,
    });
  }
  const { backend, count } = weight;
  const blocks = blocksOf(count, blockSize);
  const codes = backend.allocate([Math.ceil(count / 2)], 'u8').keep();
  const absmax = doubleQuant ? backend.empty([blocks], 'f32') : backend.allocate([blocks], 'f32').keep();
  backend.submit('quantize4bit', {
    x: weight.ref(),
    codes: codes.ref(),
    absmax: absmax.ref(),
    count,
    blockSize,
    quantType: quantTypes[quantType],
  });
  const kept = doubleQuant ? quantizeAbsmax(backend, absmax) : absmax;
  if (doubleQuant) absmax.dispose();
  return {
    kind: 'bnb4',
    shape: [weight.dim(0), weight.dim(1)],
    quantType,
    blockSize,
    codes,
    absmax: kept,
    dtype: weight.dtype,
    computeDtype,
  };
}

function quantizeAbsmax(backend: Backend, absmax: Tensor): NestedAbsmax {
  const codes = backend.allocate([absmax.count], 'u8').keep();
  const nested = backend.allocate([blocksOf(absmax.count, nestedBlockSize)], 'f32').keep();
  const offset = backend.allocate([1], 'f32').keep();
  const codebook = backend.allocate([dynamicMap.length], 'f32').keep();
  backend.assign(codebook, dynamicMap);
  backend.submit('quantizeAbsmax', {
    x: absmax.ref(),
    out: codes.ref(),
    nestedAbsmax: nested.ref(),
    nestedCode: codebook.ref(),
    offset: offset.ref(),
    count: absmax.count,
    blockSize: nestedBlockSize,
  });
  return { codes, absmax: nested, codebook, offset, blockSize: nestedBlockSize };
}

/** The weight [n, k] that the codes stand for, in `dtype` (default: the dtype before quantization). */
export function dequantizeBnb4(weight: Bnb4Weight, dtype: FloatDType = weight.dtype as FloatDType): Tensor {
  const { codes, absmax, shape, blockSize, quantType } = weight;
  const out = codes.backend.empty(shape, dtype);
  codes.backend.submit('dequantize4bit', {
    codes: codes.ref(),
    ...absmaxRefs(absmax),
    out: out.ref(),
    count: out.count,
    blockSize,
    quantType: quantTypes[quantType],
  });
  return out;
}

/** The absmax fields of a command. */
const absmaxRefs = (absmax: Bnb4Weight['absmax']) =>
  'codebook' in absmax
    ? {
        absmax: absmax.codes.ref(),
        nestedAbsmax: absmax.absmax.ref(),
        nestedCode: absmax.codebook.ref(),
        offset: absmax.offset.ref(),
        nestedBlockSize: absmax.blockSize,
      }
    : { absmax: absmax.ref(), nestedAbsmax: undefined, nestedCode: undefined, offset: undefined, nestedBlockSize: 0 };

const mapNested = (nested: NestedAbsmax, replace: (tensor: Tensor) => Tensor): NestedAbsmax => ({
  codes: replace(nested.codes),
  absmax: replace(nested.absmax),
  codebook: replace(nested.codebook),
  offset: replace(nested.offset),
  blockSize: nested.blockSize,
});

/** Rows that begin and end with a block of values, and with nested absmax begin with a block of blocks. */
function rowsOf(weight: Bnb4Weight, start: number, end: number): Bnb4Weight | undefined {
  const { absmax, blockSize, codes } = weight;
  const [n, k] = weight.shape;
  const first = (start * k) / blockSize;
  const isWhole = Number.isInteger(first) && (end === n || (end * k) % blockSize === 0);
  if (!isWhole || ('codebook' in absmax && first % absmax.blockSize !== 0)) return undefined;
  const last = blocksOf(end * k, blockSize);
  return {
    ...weight,
    shape: [end - start, k],
    codes: codes.slice((start * k) / 2, Math.ceil((end * k) / 2)),
    absmax: 'codebook' in absmax ? nestedBlocks(absmax, first, last) : absmax.slice(first, last),
  };
}

/** The absmax of blocks [start, end). */
const nestedBlocks = (nested: NestedAbsmax, start: number, end: number): NestedAbsmax => ({
  ...nested,
  codes: nested.codes.slice(start, end),
  absmax: nested.absmax.slice(start / nested.blockSize, blocksOf(end, nested.blockSize)),
});

/** Rows up to which bitsandbytes multiplies 4-bit weights in a kernel of its own, which rounds more. */
const fewRows = 4;

export const bnb4: WeightFormat<Bnb4Weight> = {
  kind: 'bnb4',
  label: ({ quantType }) => quantType,
  map: (weight, replace) => ({
    ...weight,
    codes: replace(weight.codes),
    absmax: 'codebook' in weight.absmax ? mapNested(weight.absmax, replace) : replace(weight.absmax),
  }),
  scales: ({ absmax }) => ('codebook' in absmax ? [absmax.absmax, absmax.offset] : [absmax]),
  footprint: ({ codes }) => codes.bytes,
  fields: ({ codes, absmax, blockSize, quantType, computeDtype }) => {
    const scales = absmaxRefs(absmax);
    return {
      weight: codes.ref(),
      absmax: scales.absmax,
      nestedAbsmax: scales.nestedAbsmax,
      nestedCode: scales.nestedCode,
      offset: scales.offset,
      nestedBlockSize: scales.nestedBlockSize,
      blockSize,
      quantType: quantTypes[quantType],
      computeDtype: dtypes[computeDtype].code,
    };
  },
  rows: rowsOf,
  values: dequantizeBnb4,
  eagerDType: ({ shape, blockSize, computeDtype }, rows) =>
    rows > fewRows || shape[1] % blockSize !== 0 ? (computeDtype as FloatDType) : undefined,
};

export { codebooks, dynamicMap };
