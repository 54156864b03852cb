import { embedding, type DistanceBias } from '@q/tensor';
import type { Pass } from '../pass/pass.js';
import { Constant } from './constant.js';
import { Module, type Parameter } from './module.js';

/** How distances fall into buckets. */
export interface DistanceBuckets {
  readonly buckets: number;
  /** From here on all distances are in the last bucket. */
  readonly maxDistance: number;
  /** Whether later positions have buckets of their own; else those of distance 0. */
  readonly bidirectional: boolean;
}

/**
 * The bucket of every distance key - query from -maxDistance on: to maxDistance, or to 0 where later keys are not seen.
 * Half of the buckets are for single distances, the others grow with the logarithm (Raffel et al. 2020). In float32, as
 * transformers' `_relative_position_bucket`: at the borders the rounding decides.
 */
export function distanceBuckets({ buckets, maxDistance, bidirectional }: DistanceBuckets): Int32Array {
  const count = bidirectional ? Math.floor(buckets / 2) : buckets;
  const exact = Math.floor(count / 2);
  const f32 = Math.fround;
  const bucketOf = (distance: number): number => {
    const ahead = bidirectional && distance > 0 ? count : 0;
    const far = Math.abs(distance);
    if (far < exact) return ahead + far;
    const share = f32(f32(Math.log(f32(far / exact))) / f32(Math.log(maxDistance / exact)));
    return ahead + Math.min(exact + Math.trunc(f32(share * (count - exact))), count - 1);
  };
  return Int32Array.from({ length: maxDistance * (bidirectional ? 2 : 1) + 1 }, (_, i) => bucketOf(i - maxDistance));
}

/** A learned bias on the scores, for each head and bucket of distances: weight [buckets, numHeads]. */
export class RelativeBias extends Module {
  readonly className = 'Embedding';
  readonly weight: Parameter;
  readonly #table: Constant;

  constructor(
    private readonly shape: DistanceBuckets,
    numHeads: number,
  ) {
    super();
    this.weight = this.parameter('weight', [shape.buckets, numHeads]);
    this.#table = new Constant((backend) => {
      const ids = distanceBuckets(shape);
      return embedding(this.weight.tensor, backend.tensor(ids, [ids.length], 'i32'), { dtype: 'f32' });
    });
  }

  /** A row for each distance, whatever the length of the rows. */
  on({ backend }: Pass): DistanceBias {
    return { table: this.#table.on(backend), offset: this.shape.maxDistance };
  }

  override dispose(): void {
    this.#table.dispose();
    super.dispose();
  }
}
