import { Backend } from '../core/backend.js';
import { ReferenceDriver } from '../reference/driver.js';
import type { Tensor } from '../core/tensor.js';
import type { FloatDType } from '../dtype.js';
import { fill } from '../ops/elementwise.js';
import { linear, type LinearFusion, type LinearPart } from '../ops/linear.js';
import { rmsNorm } from '../ops/norm.js';
import { dequantizeBnb4, quantizeBnb4 } from '../formats/bnb4/bnb4.js';
import { denseWeight } from '../formats/dense/dense.js';
import { dequantizeInt8, quantizeInt8 } from '../formats/int8/int8.js';
import { mapWeight, weightTensors, type Weight } from '../formats/registry.js';
import { numbers, type ConformanceCase } from './harness.js';

/** Quantizes a weight. */
export type Quantize = (weight: Tensor, compute: FloatDType) => Weight;

/**
 * The weight as the reference quantizes it, copied to the backend: linear cases compare products, and a tie that a
 * device quantizes the other way is no matter of theirs.
 */
function onReference(dense: Tensor, values: Float32Array, quantize: (weight: Tensor) => Weight): Weight {
  const driver = new ReferenceDriver();
  const reference = new Backend(driver);
  const { backend } = dense;
  const moved = <T extends Tensor>(tensor: T): Tensor => {
    const { buffer, offset, bytes } = tensor.ref();
    const copy = backend.allocate(tensor.shape, tensor.dtype).keep();
    backend.upload(copy, driver.peek(buffer, offset, bytes));
    return copy;
  };
  const weight = quantize(reference.tensor(values, dense.shape, dense.dtype as FloatDType));
  return mapWeight(weight, moved);
}

export const formats: Record<string, Quantize> = {
  dense: denseWeight,
  nf4: (weight, computeDtype) => quantizeBnb4(weight, { quantType: 'nf4', computeDtype }),
  fp4: (weight, computeDtype) => quantizeBnb4(weight, { quantType: 'fp4', blockSize: 128, computeDtype }),
  'nf4 nested': (weight, computeDtype) => quantizeBnb4(weight, { quantType: 'nf4', doubleQuant: true, computeDtype }),
  int8: (weight) => quantizeInt8(weight, { threshold: 6 }),
  'int8 threshold 0': (weight) => quantizeInt8(weight, { threshold: 0 }),
};

export const own = (weight: Weight): Weight => {
  for (const tensor of weightTensors(weight)) tensor.backend.track(tensor);
  return weight;
};

/** [rows, k, n of each part]: whole and odd sizes, tails, many rows. */
const shapes: readonly (readonly [number, number, readonly number[]])[] = [
  [0, 64, [8]],
  [1, 64, [5]],
  [1, 256, [96]],
  [1, 192, [64, 32, 32]],
  [1, 1000, [33]],
  [2, 130, [7]],
  [4, 320, [48, 48]],
  [7, 256, [90]],
  [9, 512, [70]],
  [16, 448, [31]],
  [16, 1280, [48, 33]],
  [33, 96, [70]],
  [65, 128, [64]],
  [130, 224, [129, 17]],
  [1, 2048, [512]],
];

/** A random weight in a format. */
export function carried(
  backend: Backend,
  values: Float32Array,
  shape: readonly [number, number],
  format: Quantize,
  dtype: FloatDType,
): Weight {
  return onReference(backend.empty(shape, dtype), values, (weight) => format(weight, dtype));
}

/** x with a few outlier features, as LLM.int8 meets them: 9 to 108. */
export function input(
  backend: Backend,
  source: ReturnType<typeof numbers>,
  rows: number,
  k: number,
  dtype: FloatDType,
): Tensor {
  const x = source.normals(rows * k);
  for (let row = 0; row < rows; row++)
    for (const column of [3, k >> 1]) x[row * k + column] = row % 3 === 2 ? x[row * k + column] : 9 + (row % 100);
  return backend.tensor(x, [rows, k], dtype);
}

function product(
  backend: Backend,
  format: Quantize,
  [rows, k, ns]: (typeof shapes)[number],
  dtype: FloatDType,
  fuse: (width: number) => { bias?: boolean; fusion: Omit<LinearFusion, 'residual'>; residual?: boolean },
): Tensor {
  const source = numbers(rows * 31 + k * 7 + ns.length);
  const width = ns.reduce((a, b) => a + b, 0);
  const { bias, fusion, residual } = fuse(width);
  const x = input(backend, source, rows, k, dtype);
  const parts: LinearPart[] = ns.map((n) => ({
    weight: own(carried(backend, source.normals(n * k, k ** -0.5), [n, k], format, dtype)),
    bias: bias ? backend.tensor(source.normals(n), [n], dtype) : undefined,
  }));
  const outWidth = fusion.gated ? width / 2 : width;
  const added = residual ? backend.tensor(source.normals(rows * outWidth), [rows, outWidth], dtype) : undefined;
  return linear(x, parts, { ...fusion, residual: added });
}

// Integer products are exact and rounding of x to int8 is the same rule everywhere; what remains are f32 roundings, or
// those of the act dtype for weights rounded to it.
const tolerance = (format: string, dtype: FloatDType): number | undefined =>
  format.startsWith('int8') && dtype === 'f32' ? 1e-5 : undefined;

const formatCases: ConformanceCase[] = Object.entries(formats).flatMap(([name, format]) => [
  ...shapes.map((shape) => ({
    name: `linear ${name} rows ${shape[0]}, k ${shape[1]}, n ${shape[2].join('+')}`,
    run: (context: Parameters<ConformanceCase['run']>[0]) =>
      context.same((backend) => product(backend, format, shape, context.dtype, () => ({ fusion: {} })), {
        tolerance: tolerance(name, context.dtype),
      }),
  })),
  ...[1, 3, 40, 100].map((rows) => ({
    name: `linear ${name} bias, gelu, residual, rows ${rows}`,
    run: (context: Parameters<ConformanceCase['run']>[0]) =>
      context.same(
        (backend) =>
          product(backend, format, [rows, 192, [40]], context.dtype, () => ({
            bias: true,
            residual: true,
            fusion: { activation: 'gelu' },
          })),
        { tolerance: tolerance(name, context.dtype) },
      ),
  })),
  ...[1, 5, 80].map((rows) => ({
    name: `linear ${name} gated silu, rows ${rows}`,
    run: (context: Parameters<ConformanceCase['run']>[0]) =>
      context.same(
        (backend) =>
          product(backend, format, [rows, 256, [72, 72]], context.dtype, () => ({
            fusion: { activation: 'silu', gated: true },
          })),
        { tolerance: tolerance(name, context.dtype) ?? (context.dtype === 'f32' ? 5e-6 : undefined) },
      ),
  })),
]);

/** Dense weights in another dtype than x, which some modules keep (T5's `wo` in float32): products are in float32. */
const otherDTypes: ConformanceCase[] = (['f32', 'f16', 'bf16'] as const).flatMap((kept) =>
  shapes.slice(1).map(([rows, k, ns]) => ({
    name: `linear dense ${kept}, residual, rows ${rows}, k ${k}, n ${ns.join('+')}`,
    run: (context: Parameters<ConformanceCase['run']>[0]) =>
      context.same((backend) => {
        const source = numbers(rows * 31 + k * 7 + ns.length);
        const width = ns.reduce((a, b) => a + b, 0);
        const x = input(backend, source, rows, k, context.dtype);
        const parts = ns.map((n) => ({
          weight: own(denseWeight(backend.tensor(source.normals(n * k, k ** -0.5), [n, k], kept).keep())),
        }));
        return linear(x, parts, {
          residual: backend.tensor(source.normals(rows * width), [rows, width], context.dtype),
        });
      }),
  })),
);

/** DeepSeek's routers: 16-bit activations and weights, products that are not rounded to 16 bits. */
const inFp32: ConformanceCase[] = [1, 4, 40].map((rows) => ({
  name: `linear dense in float32, bias, rows ${rows}`,
  run: (context: Parameters<ConformanceCase['run']>[0]) =>
    context.same(
      (backend) =>
        product(backend, denseWeight, [rows, 1024, [96]], context.dtype, () => ({
          bias: true,
          fusion: { inFp32: true },
        })),
      { tolerance: 5e-6 },
    ),
}));

/** Gate and up in one weight; 256 columns of nested blocks are parts of it, 72 begin within a block of blocks. */
const fusedGates: ConformanceCase[] = Object.entries(formats).flatMap(([name, format]) =>
  [1, 5, 80].flatMap((rows) =>
    [72, 256].map((n) => ({
      name: `linear ${name} gate and up of ${n} columns in one, bias, residual, rows ${rows}`,
      run: (context: Parameters<ConformanceCase['run']>[0]) =>
        context.same(
          (backend) =>
            product(backend, format, [rows, 256, [2 * n]], context.dtype, () => ({
              bias: true,
              residual: true,
              fusion: { activation: 'silu', gated: true },
            })),
          { tolerance: tolerance(name, context.dtype) ?? (context.dtype === 'f32' ? 5e-6 : undefined) },
        ),
    })),
  ),
);

/** gpt-oss: a clamped gate and up, in every kernel that multiplies them. */
const limited: ConformanceCase[] = Object.entries(formats).flatMap(([name, format]) =>
  [1, 3, 16, 20, 80, 300].map((rows) => ({
    name: `linear ${name} gated with limits, bias, residual, rows ${rows}`,
    run: (context: Parameters<ConformanceCase['run']>[0]) =>
      context.same(
        (backend) =>
          product(backend, format, [rows, 512, [72, 72]], context.dtype, () => ({
            bias: true,
            residual: true,
            fusion: { activation: 'quick_gelu', gated: true, limit: 1.5, upOffset: 1 },
          })),
        { tolerance: tolerance(name, context.dtype) ?? (context.dtype === 'f32' ? 5e-6 : undefined) },
      ),
  })),
);

/** A row's result is the same alone and among neighbours. */
const independence: ConformanceCase[] = Object.entries(formats).map(([name, format]) => ({
  name: `linear ${name}: rows are independent of neighbours`,
  run: async ({ backend, dtype }) => {
    const run = async (scale: number) => {
      const result = backend.scope(() => {
        const source = numbers(5);
        const weight = own(carried(backend, source.normals(64 * 128), [64, 128], format, dtype));
        const x = source.normals(4 * 128);
        for (let i = 128; i < x.length; i++) x[i] *= scale;
        return linear(backend.tensor(x, [4, 128], dtype), [{ weight }]);
      });
      const data = (await result.data()) as Float32Array;
      result.dispose();
      return data.slice(0, 64);
    };
    const [calm, loud] = [await run(1), await run(50)];
    if (calm.some((value, i) => value !== loud[i])) throw new Error('row 0 changed with its neighbours');
  },
}));

// 16-bit weights have values exactly between two fp4 codes; bitsandbytes on CUDA decides them by an approximate
// reciprocal, the reference by an exact one. About one bfloat16 value in 10,000 is such a tie, worth at most a third of
// the absmax, which is 2.5 times the root mean square: sqrt(1e-4) * 2.5 / 3 = 0.8 % of the norm.
const roundTrips: ConformanceCase[] = (['f32', 'f16', 'bf16'] as const).flatMap((dtype) =>
  [64, 65, 1000, 64 * 300].flatMap((count) => {
    const weight = (backend: Backend) => backend.tensor(numbers(count).normals(count), [1, count], dtype);
    const parts = (quantized: Weight) => weightTensors(own(quantized));
    return [
      ...(['nf4', 'fp4'] as const).map((quantType) => ({
        name: `quantize ${quantType} of ${count} ${dtype}`,
        run: (context: Parameters<ConformanceCase['run']>[0]) =>
          context.same(
            (backend) => {
              const quantized = quantizeBnb4(weight(backend), { quantType });
              const dense = dequantizeBnb4(quantized, dtype);
              return quantType === 'fp4' && dtype !== 'f32' ? [dense] : [...parts(quantized), dense];
            },
            quantType === 'fp4' && dtype !== 'f32' ? { tolerance: 1e-2 } : { exact: true },
          ),
      })),
      {
        name: `quantize nf4 nested of ${count} ${dtype}`,
        run: (context: Parameters<ConformanceCase['run']>[0]) =>
          context.same(
            (backend) => {
              const quantized = quantizeBnb4(weight(backend), { quantType: 'nf4', doubleQuant: true });
              return [...parts(quantized), dequantizeBnb4(quantized, 'f32')];
            },
            { exact: true },
          ),
      },
      {
        name: `quantize int8 of ${count} ${dtype}`,
        run: (context: Parameters<ConformanceCase['run']>[0]) =>
          context.same(
            (backend) => {
              const quantized = quantizeInt8(weight(backend));
              return [...parts(quantized), dequantizeInt8(quantized, 'f32')];
            },
            { exact: true },
          ),
      },
    ];
  }),
);

/** Runs commands one by one and as a program, twice; the tensors they leave must have the same bits. */
async function sameRecorded(backend: Backend, results: Record<string, Tensor>, step: () => Tensor[]): Promise<void> {
  const tensors = Object.values(results);
  const run = () => {
    for (const [i, value] of step().entries()) backend.submit('copy', { src: value.ref(), out: tensors[i].ref() });
  };
  const bits = async () =>
    (await Promise.all(tensors.map((tensor) => tensor.data()))).map((data) => Array.from(data as Float32Array).join());
  backend.scope(run);
  const expected = await bits();
  const program = backend.capture(run);
  try {
    for (let time = 0; time < 2; time++) {
      for (const tensor of tensors) fill(tensor, 0);
      program.replay();
      const got = await bits();
      for (const [i, name] of Object.keys(results).entries())
        if (got[i] !== expected[i]) throw new Error(`the ${name} of the program differs`);
    }
  } finally {
    program.dispose();
    for (const tensor of tensors) tensor.dispose();
  }
}

/**
 * A program may compute a norm together with the product that follows it, but gives the bits of the commands one by
 * one, the norm's own result included.
 */
const recorded: ConformanceCase[] = Object.entries(formats).flatMap(([name, format]) =>
  [
    [1, 512],
    [1, 2048],
    [1, 5120],
    [3, 2048],
    [16, 5120],
  ].map(([rows, k]) => ({
    name: `linear ${name} after a norm, ${rows} x ${k}: a program gives the bits of its commands`,
    run: async ({ backend, dtype }) => {
      const source = numbers(k);
      const x = input(backend, source, rows, k, dtype).keep();
      const scale = backend.tensor(source.normals(k), [k], dtype).keep(); // some of what the norm gives is an outlier for int8
      const parts = backend.scope(() =>
        [96, 41].map((n) => ({ weight: carried(backend, source.normals(n * k, k ** -0.5), [n, k], format, dtype) })),
      );
      const results = {
        norm: backend.empty([rows, k], dtype).keep(),
        product: backend.empty([rows, 137], dtype).keep(),
      };
      await sameRecorded(backend, results, () => {
        const normalized = rmsNorm(x, scale, { eps: 1e-5 });
        return [normalized, linear(normalized, parts)];
      });
      for (const tensor of [x, scale, ...parts.flatMap(({ weight }) => weightTensors(weight))]) tensor.dispose();
    },
  })),
);

/** The products of a layer, each of which reads what the one before it wrote, and the next layer's first. */
const chained: ConformanceCase[] = Object.entries(formats).map(([name, format]) => ({
  name: `linear ${name}: a program gives the bits of products one after the other`,
  run: async ({ backend, dtype }) => {
    const [width, inner] = [1024, 1536];
    const source = numbers(11);
    const x = input(backend, source, 1, width, dtype).keep();
    const scale = backend.tensor(source.normals(width), [width], dtype).keep();
    const weight = (n: number, k: number): LinearPart => ({
      weight: backend.scope(() => carried(backend, source.normals(n * k, k ** -0.5), [n, k], format, dtype)),
    });
    const [output, gate, up, down] = [
      weight(width, width),
      weight(inner, width),
      weight(inner, width),
      weight(width, inner),
    ];
    const heads = [weight(512, width), weight(65, width), weight(130, width)];
    const results = { output: [1, width], gated: [1, inner], down: [1, width], heads: [1, 707] };
    const kept = Object.fromEntries(
      Object.entries(results).map(([what, shape]) => [what, backend.empty(shape, dtype).keep()]),
    );
    await sameRecorded(backend, kept, () => {
      const mixed = linear(x, [output], { residual: x });
      const wide = linear(rmsNorm(mixed, scale, { eps: 1e-5 }), [gate, up], { activation: 'silu', gated: true });
      const next = linear(wide, [down], { residual: mixed });
      return [mixed, wide, next, linear(rmsNorm(next, scale, { eps: 1e-5 }), heads)];
    });
    for (const tensor of [
      x,
      scale,
      ...[output, gate, up, down, ...heads].flatMap((part) => weightTensors(part.weight)),
    ])
      tensor.dispose();
  },
}));

export const linearCases: ConformanceCase[] = [
  ...formatCases,
  ...otherDTypes,
  ...inFp32,
  ...fusedGates,
  ...limited,
  ...independence,
  ...recorded,
  ...chained,
  ...roundTrips,
];
