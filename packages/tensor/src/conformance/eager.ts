// Eager numerics. Both sides round to the same 16 bits, so most elements are equal; a sum in another order falls to the
// neighbouring value now and then: one of 30 elements by one unit (2^-10 of f16, 2^-7 of bf16, 0.7 of that on average)
// gives 1.3e-4 and 1e-3. A rounding too many or too few changes all of them, by 2e-4 and 1.6e-3.
import type { Backend } from '../core/backend.js';
import type { Tensor } from '../core/tensor.js';
import type { FloatDType } from '../dtype.js';
import type { ActivationKind } from '../driver/schema.js';
import { add, gatedActivation, multiply, scaleInPlace } from '../ops/elementwise.js';
import { linear, type LinearPart } from '../ops/linear.js';
import { layerNorm, rmsNorm } from '../ops/norm.js';
import { embedding } from '../ops/rows.js';
import { eager } from '../lowering/eager.js';
import { runAttention, settings } from './attention.js';
import { numbers, type Conformance, type ConformanceCase } from './harness.js';
import { carried, formats, own, type Quantize } from './linear.js';

const tolerances: Readonly<Record<FloatDType, number>> = { f32: 2e-6, f16: 1.5e-4, bf16: 1.2e-3 };

/** Dtypes of the model in a run with an activation dtype: with f32 activations any, else that dtype. */
const modelDTypes = ({ dtype }: Conformance): readonly FloatDType[] =>
  dtype === 'f32' ? ['f32', 'f16', 'bf16'] : [dtype];

const eagerCase = (
  name: string,
  make: (backend: Backend, dtype: FloatDType, model: FloatDType) => Tensor | Tensor[],
): ConformanceCase => ({
  name: `eager ${name}`,
  run: async (context) => {
    for (const model of modelDTypes(context)) {
      await context.same((backend) => backend.lowered(eager(model), () => make(backend, context.dtype, model)), {
        tolerance: tolerances[model],
        label: model,
      });
    }
  },
});

/**
 * [rows, k, n of each part]: below and above the few rows of bitsandbytes' 4-bit kernel, and k that no block of 64
 * divides.
 */
const shapes: readonly (readonly [number, number, readonly number[]])[] = [
  [0, 64, [8]],
  [1, 256, [96]],
  [3, 192, [64, 32, 32]],
  [4, 130, [7]],
  [5, 320, [48, 48]],
  [37, 448, [31]],
];

/**
 * x with a few outlier features. The largest element of a row is a power of two: by others devices divide with another
 * last bit, and a value half way between two codes falls to one side or the other.
 */
function input(
  backend: Backend,
  source: ReturnType<typeof numbers>,
  rows: number,
  k: number,
  dtype: FloatDType,
): Tensor {
  const x = source.normals(rows * k).map((value) => Math.min(Math.max(value, -3.9), 3.9));
  for (let row = 0; row < rows; row++) {
    x[row * k + 7] = 4;
    if (row % 3 !== 2) for (const column of [3, k >> 1]) x[row * k + column] = -16;
  }
  return backend.tensor(x, [rows, k], dtype);
}

function product(
  backend: Backend,
  format: Quantize | readonly Quantize[],
  [rows, k, ns]: (typeof shapes)[number],
  dtype: FloatDType,
  model: FloatDType,
  fusion: { activation?: ActivationKind; gated?: boolean; all?: boolean },
): Tensor {
  const source = numbers(rows * 31 + k * 7 + ns.length);
  const x = input(backend, source, rows, k, dtype);
  const parts: LinearPart[] = ns.map((n, i) => ({
    weight: own(
      carried(
        backend,
        source.normals(n * k, k ** -0.5),
        [n, k],
        (dense) => (Array.isArray(format) ? format[i] : format)(dense, model),
        dtype,
      ),
    ),
    bias: fusion.all ? backend.tensor(source.normals(n), [n], dtype) : undefined,
  }));
  const width = fusion.gated ? ns[0] : ns.reduce((a, b) => a + b, 0);
  const residual = fusion.all ? backend.tensor(source.normals(rows * width), [rows, width], dtype) : undefined;
  return linear(x, parts, { activation: fusion.activation, gated: fusion.gated, residual });
}

const linears: ConformanceCase[] = Object.entries(formats).flatMap(([name, format]) => [
  ...shapes.map((shape) =>
    eagerCase(`linear ${name} rows ${shape[0]}, k ${shape[1]}, n ${shape[2].join('+')}`, (backend, dtype, model) =>
      product(backend, format, shape, dtype, model, {}),
    ),
  ),
  ...[1, 9].map((rows) =>
    eagerCase(`linear ${name} bias, silu, gate, residual, rows ${rows}`, (backend, dtype, model) =>
      product(backend, format, [rows, 192, [40, 40]], dtype, model, { activation: 'silu', gated: true, all: true }),
    ),
  ),
]);

const mixed = eagerCase('linear of dense, int8 and nf4 side by side', (backend, dtype, model) =>
  product(backend, [formats.dense, formats.int8, formats.nf4], [3, 128, [24, 40, 16]], dtype, model, { all: true }),
);

/**
 * A column with an outlier in one row leaves the integer product of all rows, as in bitsandbytes; what others have
 * there still counts for their absmax. Row 0 is calm, its largest value in the column where row 1 is loud.
 */
const columns = eagerCase('linear int8: outlier columns belong to the whole matrix', (backend, dtype) => {
  const source = numbers(6);
  const weight = own(carried(backend, source.normals(64 * 128), [64, 128], formats.int8, dtype));
  const x = source.normals(2 * 128);
  [x[5], x[7], x[128 + 5]] = [4, 3.5, 50];
  return linear(backend.tensor(x, [2, 128], dtype), [{ weight }]);
});

const elementwise: ConformanceCase[] = (
  [
    [1, 1],
    [3, 7],
    [5, 130],
    [17, 256],
  ] as const
).flatMap(([rows, width]) => {
  const random =
    (backend: Backend, dtype: FloatDType, seed: number) =>
    (shape: number[], scale = 1, as = dtype) =>
      backend.tensor(
        numbers(seed + shape.length).normals(
          shape.reduce((a, b) => a * b, 1),
          scale,
        ),
        shape,
        as,
      );
  const one = (
    op: string,
    make: (make: ReturnType<typeof random>, backend: Backend, model: FloatDType) => Tensor | Tensor[],
  ) =>
    eagerCase(`${op} [${rows}, ${width}]`, (backend, dtype, model) =>
      make(random(backend, dtype, rows * 7919 + width), backend, model),
    );
  return [
    one('add', (make) => add(make([rows, width]), make([rows, width], 3))),
    one('multiply', (make) => multiply(make([rows, width]), make([rows, width], 3))),
    one('multiply by a row', (make) => multiply(make([rows, width]), make([width], 1, 'bf16'))),
    one('gatedActivation', (make) => gatedActivation(make([rows, 2 * width], 3), 'silu')),
    one('gatedActivation with limits', (make) =>
      gatedActivation(make([rows, 2 * width], 3), 'quick_gelu', { limit: 2, upOffset: 1 }),
    ),
    one('scale', (make) => {
      const x = make([rows, width], 20);
      scaleInPlace(x, { factor: 0.37, softcap: 30 });
      return x;
    }),
    one('rmsNorm', (make) => rmsNorm(make([rows, width], 5), make([width], 1, 'bf16'), { eps: 1e-5 })),
    one('rmsNorm with an offset and a residual', (make) => {
      const x = make([rows, width]);
      return [rmsNorm(x, make([width], 1, 'f32'), { eps: 1e-5, weightOffset: 1, residual: make([rows, width], 2) }), x];
    }),
    one('rmsNorm of one rounding', (make) =>
      rmsNorm(make([rows, width], 5), make([width], 1, 'bf16'), { eps: 1e-5, roundFirst: false }),
    ),
    one('layerNorm with a residual', (make) => {
      const x = make([rows, width]);
      return [layerNorm(x, { weight: make([width]), eps: 1e-3, residual: make([rows, width], 2) }), x];
    }),
    one('embedding', (make, backend) =>
      embedding(
        make([11, width], 1, 'f32'),
        backend.tensor(
          Int32Array.from({ length: rows }, (_, i) => (i * 5) % 11),
          [rows],
          'i32',
        ),
        { dtype: make([1]).dtype as FloatDType, scale: 1.7 },
      ),
    ),
  ];
});

const attentions = settings.map((setting) =>
  eagerCase(`rope, cache and attention: ${setting.name}`, (backend, dtype) => runAttention(backend, setting, dtype)),
);

export const eagerCases: readonly ConformanceCase[] = [...linears, mixed, columns, ...elementwise, ...attentions];
