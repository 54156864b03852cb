import { QError } from '@q/config';
import type { FloatDType } from '../dtype.js';
import type { Backend } from '../core/backend.js';
import type { Tensor } from '../core/tensor.js';
import { referenceBackend } from '../reference/driver.js';

/** One check of a backend against the reference. Throws when it fails. */
export interface ConformanceCase {
  readonly name: string;
  run(context: Conformance): Promise<void>;
}

/**
 * Largest relative Frobenius error of a result stored in a dtype whose inputs are exact: a few roundings to that dtype.
 */
const tolerances: Readonly<Record<FloatDType, number>> = { f32: 2e-6, f16: 1e-3, bf16: 8e-3 };

/** Numbers from a small seeded generator (mulberry32), the same on every machine. */
export function numbers(seed: number): {
  uniform(): number;
  normal(): number;
  below(limit: number): number;
  normals(count: number, scale?: number): Float32Array;
} {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return {
    uniform,
    normal,
    below: (limit) => Math.floor(uniform() * limit),
    normals: (count, scale = 1) => Float32Array.from({ length: count }, () => normal() * scale),
  };
}

/**
 * What a case is given: the backend under test, its activation dtype, and ways to run the same thing on the reference.
 */
export class Conformance {
  constructor(
    readonly backend: Backend,
    /** Activation dtype of this run. */
    readonly dtype: FloatDType,
  ) {}

  /** Runs `make` on both backends and compares the tensors that it returns. */
  async same(
    make: (backend: Backend) => Tensor | Tensor[],
    options: { tolerance?: number; exact?: boolean; label?: string } = {},
  ): Promise<void> {
    const expected = referenceBackend();
    const results = await Promise.all([this.backend, expected].map((backend) => collect(backend, make)));
    const label = options.label ?? 'result';
    results[0].forEach((actual, i) => {
      const name = `${label}[${i}]`;
      if (options.exact) assertEqual(actual, results[1][i], name);
      else assertClose(actual, results[1][i], options.tolerance ?? tolerances[this.dtype], name);
    });
    await expected.close();
  }
}

async function collect(backend: Backend, make: (backend: Backend) => Tensor | Tensor[]): Promise<number[][]> {
  const kept: Tensor[] = [];
  backend.scope(() => {
    for (const tensor of [make(backend)].flat()) kept.push(tensor.keep());
  });
  try {
    return await Promise.all(
      kept.map(async (tensor) => Array.from((await tensor.data()) as ArrayLike<number | bigint>, Number)),
    );
  } finally {
    for (const tensor of kept) tensor.dispose();
  }
}

export const fail = (message: string): never => {
  throw new QError('native', 'conformance', message);
};

/** Relative Frobenius distance of two lists. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let [difference, norm] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    difference += (actual[i] - expected[i]) ** 2;
    norm += expected[i] ** 2;
  }
  return norm === 0 ? Math.sqrt(difference) : Math.sqrt(difference / norm);
}

/** @throws QError when lengths differ, a value is NaN, or the relative Frobenius error is above the tolerance. */
export function assertClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
  name = 'result',
): void {
  if (actual.length !== expected.length) fail(`${name} has ${actual.length} elements, expected ${expected.length}`);
  const error = relativeError(actual, expected);
  if (!(error <= tolerance)) fail(`${name} is off by ${error} relative, allowed ${tolerance}`);
}

/** @throws QError at the first element that differs. */
export function assertEqual(actual: ArrayLike<number>, expected: ArrayLike<number>, name = 'result'): void {
  if (actual.length !== expected.length) fail(`${name} has ${actual.length} elements, expected ${expected.length}`);
  for (let i = 0; i < expected.length; i++) {
    if (!Object.is(actual[i], expected[i]) && actual[i] !== expected[i])
      fail(`${name}[${i}] is ${actual[i]}, expected ${expected[i]}`);
  }
}
