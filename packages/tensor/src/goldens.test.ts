// The reference backend against bitsandbytes 0.50.2 on a GPU.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { brotliDecompressSync } from 'node:zlib';
import { afterAll, describe, expect, it } from 'vitest';
import { relativeError } from './conformance/index.js';
import {
  codebooks,
  decodeBytes,
  dequantizeBnb4,
  disposeWeight,
  dtypeBytes,
  dynamicMap,
  eager,
  linear,
  quantizeBnb4,
  quantizeInt8,
  referenceBackend,
  weightBytes,
  bnb4Bytes,
  int8Bytes,
  type DType,
  type FloatDType,
  type QuantType,
  type Tensor,
} from './index.js';

interface Stored {
  readonly dtype: DType;
  readonly shape: number[];
  readonly at: number;
  readonly bytes: number;
}

interface BlockwiseCase {
  readonly key: string;
  readonly weight: string;
  readonly quantType: QuantType;
  readonly blockSize: number;
  readonly nested: boolean;
  /** SHA-1 of the bytes. */
  readonly packed: string;
  readonly absmax: string;
  readonly dequant: string;
  readonly offset?: number;
  readonly nestedAbsmax?: string;
  /** Where the codes are not those of the reference. */
  readonly packedBytes?: Stored;
}

interface Goldens {
  readonly code: Readonly<Record<'nf4' | 'fp4' | 'nested', Stored>>;
  readonly weights: Readonly<Record<string, Stored>>;
  readonly blockwise: readonly BlockwiseCase[];
  readonly matmul: {
    readonly weight: Stored;
    readonly bias: Stored;
    readonly cases: readonly { name: string; quantType: QuantType; x: Stored; y: Stored }[];
  };
  readonly int8: {
    readonly weight: Stored;
    readonly bias: Stored;
    readonly x: Stored;
    readonly codes: Stored;
    readonly absmax: Stored;
    readonly cases: readonly {
      threshold: number;
      y: Stored;
      codes: Stored;
      absmax: Stored;
      outlierColumns: number[];
    }[];
  };
}

const read = (name: string) =>
  brotliDecompressSync(readFileSync(fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url))));
const goldens = JSON.parse(read('bitsandbytes.json.br').toString()) as Goldens;
const data = read('bitsandbytes.bin.br');
const backend = referenceBackend();
afterAll(() => backend.close());

/** The bytes of a golden, which is stored as byte planes. */
function bytesOf({ dtype, at, bytes }: Stored): Uint8Array {
  const width = dtype === 'i64' ? 1 : dtypeBytes(dtype);
  const count = bytes / width;
  return Uint8Array.from({ length: bytes }, (_, i) => data[at + (i % width) * count + Math.floor(i / width)]);
}

const numbersOf = (stored: Stored): number[] =>
  Array.from(decodeBytes(stored.dtype, bytesOf(stored)) as ArrayLike<number>);

function tensorOf(stored: Stored, shape: readonly number[] = stored.shape): Tensor {
  const tensor = backend.empty(shape, stored.dtype);
  backend.upload(tensor, bytesOf(stored));
  return tensor;
}

const sha = async (tensor: Tensor): Promise<string> =>
  createHash('sha1')
    .update(await tensor.toBytes())
    .digest('hex');

it('code books are those of bitsandbytes', () => {
  expect([...codebooks.nf4]).toEqual(numbersOf(goldens.code.nf4));
  expect([...codebooks.fp4].map((value) => value + 0)).toEqual(numbersOf(goldens.code.fp4)); // the GPU's table has -0 for code 8, the stored one 0
  expect([...dynamicMap]).toEqual(numbersOf(goldens.code.nested));
});

const nibbles = (bytes: Uint8Array): number[] => Array.from(bytes).flatMap((byte) => [byte >> 4, byte & 15]);

describe('blockwise quantization, bit for bit', () => {
  it.each(goldens.blockwise)(
    '$key',
    async ({
      weight: name,
      quantType,
      blockSize,
      nested,
      packed,
      absmax,
      dequant,
      offset,
      nestedAbsmax,
      packedBytes,
    }) => {
      const dense = tensorOf(goldens.weights[name]);
      const weight = quantizeBnb4(dense, { quantType, blockSize, doubleQuant: nested });
      expect(weightBytes(weight)).toBe(bnb4Bytes(dense.count, { blockSize, doubleQuant: nested }));
      if ('codebook' in weight.absmax) {
        expect((await weight.absmax.offset.data())[0]).toBe(offset);
        expect(await sha(weight.absmax.absmax)).toBe(nestedAbsmax);
        expect(await sha(weight.absmax.codes)).toBe(absmax);
      } else expect(await sha(weight.absmax)).toBe(absmax);
      if (packedBytes) {
        const [actual, expected] = [nibbles(await weight.codes.toBytes()), nibbles(bytesOf(packedBytes))];
        expect(actual.filter((code, i) => code !== expected[i]).length).toBe(fp4Ties[`${name} ${blockSize}`]);
        backend.upload(weight.codes, bytesOf(packedBytes));
      } else expect(await sha(weight.codes)).toBe(packed);
      const restored = dequantizeBnb4(weight);
      expect(await sha(restored)).toBe(dequant);
      for (const tensor of [dense, restored]) tensor.dispose();
      disposeWeight(weight);
    },
  );
});

// 16-bit weights whose quotient by the absmax lies exactly between two fp4 values: the GPU's approximate reciprocal
// decides there. Codes that differ:
const fp4Ties: Readonly<Record<string, number>> = {
  'normal.float16.weight 256': 1,
  'normal.float16.weight 512': 1,
  'normal.bfloat16.weight 64': 1,
  'normal.bfloat16.weight 128': 3,
  'heavy.bfloat16.weight 128': 1,
  'odd.bfloat16.weight 64': 1,
  'odd.bfloat16.weight 128': 1,
  'edge.bfloat16.weight 64': 1,
};

describe('products with 4-bit weights', () => {
  const tolerance: Readonly<Record<string, number>> = { f32: 1e-6, f16: 2e-3, bf16: 1e-2 };

  it.each(goldens.matmul.cases)('$name', async ({ quantType, x, y }) => {
    const dtype = x.dtype as FloatDType;
    const { weight, bias } = goldens.matmul;
    const result = backend.scope(() => {
      const rounded = backend.tensor(numbersOf(weight), weight.shape, dtype);
      const quantized = quantizeBnb4(rounded, { quantType, doubleQuant: true, computeDtype: dtype });
      const product = linear(tensorOf(x), [
        { weight: quantized, bias: backend.tensor(numbersOf(bias), bias.shape, dtype) },
      ]);
      disposeWeight(quantized);
      return product;
    });
    expect(relativeError((await result.data()) as Float32Array, numbersOf(y))).toBeLessThanOrEqual(tolerance[dtype]);
    result.dispose();
  });
});

describe('products with 4-bit weights and eager numerics', () => {
  // Up to 4 rows the 16-bit results are those of bitsandbytes' kernel, bit for bit; fp4 from bfloat16 but for the codes
  // that are ties there. Above, this size of weight takes a tensor-core kernel there, which rounds weights twice, by
  // half a unit of f16 or bf16 (2.8e-4 and 2.3e-3 on average), and here the way of larger ones.
  const exactRows = 4;
  const tolerance: Readonly<Record<string, number>> = { f32: 1e-6, f16: 5e-4, bf16: 5e-3 };

  it.each(goldens.matmul.cases)('$name', async ({ quantType, x, y }) => {
    const dtype = x.dtype as FloatDType;
    const { weight, bias } = goldens.matmul;
    const result = backend.scope(() => {
      const quantized = quantizeBnb4(backend.tensor(numbersOf(weight), weight.shape, dtype), {
        quantType,
        doubleQuant: true,
        computeDtype: dtype,
      });
      const product = backend.lowered(eager(dtype), () =>
        linear(tensorOf(x), [{ weight: quantized, bias: backend.tensor(numbersOf(bias), bias.shape, dtype) }]),
      );
      disposeWeight(quantized);
      return product;
    });
    const [actual, expected] = [Array.from((await result.data()) as Float32Array), numbersOf(y)];
    result.dispose();
    expect(relativeError(actual, expected)).toBeLessThanOrEqual(tolerance[dtype]);
    const ties = quantType === 'fp4' && dtype === 'bf16';
    if (x.shape[0] <= exactRows && dtype !== 'f32' && !ties) expect(actual).toEqual(expected);
  });
});

describe('LLM.int8', () => {
  const { weight, bias, x, codes, absmax, cases } = goldens.int8;

  it('quantizes the weight row by row', async () => {
    const dense = tensorOf(weight);
    const quantized = quantizeInt8(dense);
    expect(weightBytes(quantized)).toBe(int8Bytes(weight.shape[0], weight.shape[1]));
    const [actual, expected] = [await quantized.codes.toBytes(), bytesOf(codes)];
    const different = [...expected.keys()].filter((i) => actual[i] !== expected[i]);
    expect(different.length).toBe(1); // of 40960: exactly half-way between two codes, where the GPU's approximate division decides
    const values = numbersOf(weight);
    for (const i of different) {
      const row = values.slice(i - (i % weight.shape[1])).slice(0, weight.shape[1]);
      expect(((127 * Math.abs(values[i])) / Math.max(...row.map(Math.abs))) % 1).toBeCloseTo(0.5, 6);
    }
    expect(Buffer.from(await quantized.absmax.toBytes()).equals(bytesOf(absmax))).toBe(true);
    disposeWeight(quantized);
    dense.dispose();
  });

  it.each(cases)('multiplies with threshold $threshold', async ({ threshold, y }) => {
    const rows = x.shape[0] * x.shape[1];
    const result = backend.scope(() => {
      const quantized = quantizeInt8(tensorOf(weight), { threshold });
      const product = linear(tensorOf(x, [rows, x.shape[2]]), [{ weight: quantized, bias: tensorOf(bias) }]);
      disposeWeight(quantized);
      return product;
    });
    const error = relativeError((await result.data()) as Float32Array, numbersOf(y));
    result.dispose();
    expect(error).toBeLessThanOrEqual(2e-3);
  });

  // Rounded where bitsandbytes rounds: of 2880 results at most 3 fall to the neighbouring value, small ones, since sums
  // have another order.
  it.each(cases)('gives the same numbers with eager numerics and threshold $threshold', async ({ threshold, y }) => {
    const rows = x.shape[0] * x.shape[1];
    const result = backend.lowered(eager('f16'), () =>
      backend.scope(() => {
        const quantized = quantizeInt8(tensorOf(weight), { threshold });
        const product = linear(tensorOf(x, [rows, x.shape[2]]), [
          { weight: { ...quantized, codes: tensorOf(codes) }, bias: tensorOf(bias) },
        ]);
        disposeWeight(quantized);
        return product;
      }),
    );
    const [actual, expected] = [(await result.data()) as Float32Array, numbersOf(y)];
    result.dispose();
    expect(expected.filter((value, i) => value !== actual[i]).length).toBeLessThanOrEqual(3);
    expect(relativeError(actual, expected)).toBeLessThanOrEqual(1e-6);
  });
});

it('leaves nothing allocated', () => expect(backend.memory().usedBytes).toBe(0));
