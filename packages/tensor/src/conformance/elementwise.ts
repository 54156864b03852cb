import type { Backend } from '../core/backend.js';
import type { Tensor } from '../core/tensor.js';
import { activationKinds, type ActivationKind } from '../driver/schema.js';
import {
  activation,
  add,
  argmax,
  cast,
  copy,
  crossEntropy,
  fill,
  gatedActivation,
  scaleInPlace,
  softmax,
} from '../ops/elementwise.js';
import { layerNorm, rmsNorm } from '../ops/norm.js';
import { embedding, scatterRows, selectRows } from '../ops/rows.js';
import { numbers, type ConformanceCase } from './harness.js';

const sizes = [
  [0, 8],
  [1, 1],
  [1, 64],
  [3, 7],
  [5, 129],
  [2, 4099],
  [17, 256],
] as const;

interface Inputs {
  readonly backend: Backend;
  /** A tensor of normal random numbers in the activation dtype; the same on every backend. */
  random(shape: number[], scale?: number, dtype?: 'f32' | 'f16' | 'bf16'): Tensor;
  readonly rows: number;
  readonly width: number;
}

const perSize = (
  op: string,
  make: (inputs: Inputs) => Tensor | Tensor[],
  options: { exact?: boolean } = {},
): ConformanceCase[] =>
  sizes.map(([rows, width]) => ({
    name: `${op} [${rows}, ${width}]`,
    run: (context) =>
      context.same((backend) => {
        const source = numbers(rows * 7919 + width);
        const random: Inputs['random'] = (shape, scale = 1, dtype = context.dtype) =>
          backend.tensor(
            source.normals(
              shape.reduce((a, b) => a * b, 1),
              scale,
            ),
            shape,
            dtype,
          );
        return make({ backend, random, rows, width });
      }, options),
  }));

const indices = (backend: Backend, count: number, below: number) => {
  const source = numbers(count + below);
  return backend.tensor(
    Int32Array.from({ length: count }, () => source.below(below)),
    [count],
    'i32',
  );
};

const permutation = (backend: Backend, count: number) =>
  backend.tensor(
    Int32Array.from({ length: count }, (_, i) => count - 1 - i),
    [count],
    'i32',
  );

export const elementwiseCases: ConformanceCase[] = [
  ...perSize('add', ({ random, rows, width }) => add(random([rows, width]), random([rows, width]))),
  ...perSize(
    'fill',
    ({ backend, rows, width }) => {
      const out = backend.empty([rows, width], 'i32');
      fill(out, -3);
      return out;
    },
    { exact: true },
  ),
  ...perSize(
    'copy',
    ({ backend, random, rows, width }) => {
      const x = random([rows, width]);
      const out = backend.empty([rows, width], x.dtype);
      copy(x, out);
      return out;
    },
    { exact: true },
  ),
  ...(['f32', 'f16', 'bf16'] as const).flatMap((from) =>
    (['f32', 'f16', 'bf16'] as const).flatMap((to) =>
      perSize(`cast ${from} to ${to}`, ({ random, rows, width }) => cast(random([rows, width], 100, from), to), {
        exact: true,
      }),
    ),
  ),
  ...perSize('scale', ({ random, rows, width }) => {
    const x = random([rows, width], 20);
    scaleInPlace(x, { factor: 0.37, softcap: 30 });
    return x;
  }),
  ...(Object.keys(activationKinds) as ActivationKind[]).flatMap((kind) => [
    ...perSize(`activation ${kind}`, ({ random, rows, width }) => activation(random([rows, width], 3), kind)),
    ...perSize(`gatedActivation ${kind}`, ({ random, rows, width }) =>
      gatedActivation(random([rows, 2 * width], 3), kind),
    ),
    ...perSize(`gatedActivation ${kind} with limits`, ({ random, rows, width }) =>
      gatedActivation(random([rows, 2 * width], 3), kind, { limit: 2, upOffset: 1 }),
    ),
  ]),
  ...perSize('softmax', ({ random, rows, width }) => softmax(random([rows, width], 4))),
  ...perSize('argmax', ({ random, rows, width }) => argmax(random([rows, width])), { exact: true }),
  ...perSize('crossEntropy', ({ backend, random, rows, width }) =>
    crossEntropy(random([rows, width], 4), indices(backend, rows, width)),
  ),
  ...perSize(
    'selectRows',
    ({ backend, random, rows, width }) => selectRows(random([rows + 1, width]), indices(backend, rows, rows + 1)),
    { exact: true },
  ),
  ...perSize(
    'scatterRows',
    ({ backend, random, rows, width }) => {
      const out = random([rows, width]);
      scatterRows(random([rows, width]), permutation(backend, rows), out);
      return out;
    },
    { exact: true },
  ),
  ...(['f32', 'f16', 'bf16'] as const).flatMap((table) =>
    perSize(`embedding of ${table}`, ({ backend, random, rows, width }) => {
      const values = random([11, width], 1, table);
      return embedding(values, indices(backend, rows, 11), { dtype: random([1]).dtype as 'f32', scale: 1.5 });
    }),
  ),
  ...perSize('rmsNorm', ({ random, rows, width }) =>
    rmsNorm(random([rows, width], 5), random([width], 1, 'bf16'), { eps: 1e-5, weightOffset: 1 }),
  ),
  ...perSize('rmsNorm with residual', ({ random, rows, width }) => {
    const x = random([rows, width]);
    return [rmsNorm(x, random([width], 1, 'f32'), { eps: 1e-6, residual: random([rows, width]) }), x];
  }),
  ...perSize('layerNorm', ({ random, rows, width }) =>
    layerNorm(random([rows, width], 5), { weight: random([width]), bias: random([width]), eps: 1e-3 }),
  ),
  ...perSize('layerNorm with residual', ({ random, rows, width }) => {
    const x = random([rows, width]);
    return [layerNorm(x, { eps: 1e-3, residual: random([rows, width]) }), x];
  }),
];
