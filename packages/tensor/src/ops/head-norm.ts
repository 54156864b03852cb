import { ShapeError } from '@q/config';
import type { CommandArgs } from '../driver/schema.js';
import type { Tensor } from '../core/tensor.js';
import type { QkvLayout } from './attention.js';
import { checkActivation, checkFloat, checkShape } from './check.js';

export interface HeadNormOptions {
  readonly eps: number;
  /** The mean is subtracted first, as in a layer norm. Default false: root mean square norm. */
  readonly centred?: boolean;
  /** Default 0. */
  readonly weightOffset?: number;
  /** See `roundFirst` of rmsNorm. Default: when weightOffset is 0 and centred false. */
  readonly roundFirst?: boolean;
}

/** Heads of each row: head i lies at offset + floor(i / group) · groupStride + (i % group) · width. */
export interface HeadNormPart {
  /** Float [width], or [count, width] when each head has its own. */
  readonly weight: Tensor;
  /** In elements. */
  readonly offset: number;
  /** Heads. Default 1. */
  readonly count?: number;
  /** Default count: one group, head beside head. */
  readonly group?: number;
  /** Default 0. */
  readonly groupStride?: number;
}

/** Weights of the norms of queries and keys; see {@link queryKeyParts}. */
export interface QueryKeyWeights {
  readonly query: Tensor;
  readonly key: Tensor;
}

/**
 * Normalises heads of packed rows in place, each for itself: h / sqrt(mean(h²) + eps) · (weight + weightOffset).
 * @param x activations [T, rowStride]
 * @param parts 1 to 4, which must not overlap; the width of a head is the last axis of its weight
 */
export function headNorm(x: Tensor, parts: readonly HeadNormPart[], options: HeadNormOptions): void {
  checkActivation('headNorm', 'x', x);
  checkShape('headNorm', 'x', x, ['T', 'rowStride']);
  if (parts.length < 1 || parts.length > 4)
    throw new ShapeError('headNorm', 'takes 1 to 4 parts', { got: parts.length });
  for (const { weight, count = 1 } of parts) {
    checkFloat('headNorm', 'weight', weight);
    checkShape('headNorm', 'weight', weight, weight.shape.length === 2 ? [count, 'width'] : ['width']);
  }
  x.backend.lowering.headNorm(x, parts, options);
}

/**
 * The queries and keys of packed rows. A weight is [headDim] for all heads (Qwen 3, Gemma 3), [heads, headDim] with one
 * for each head (Cohere, StableLM), or [heads · headDim] for a norm over all heads at once (OLMo 2).
 * @throws ShapeError
 */
export function queryKeyParts(layout: QkvLayout, { query, key }: QueryKeyWeights): HeadNormPart[] {
  const { numHeads, numKvHeads, qOffset, qGroupStride, kOffset, kvStride } = layout;
  return [
    partOf('query', query, layout, numHeads, qOffset, numHeads / numKvHeads, qGroupStride),
    partOf('key', key, layout, numKvHeads, kOffset, 1, kvStride),
  ];
}

function partOf(
  name: string,
  weight: Tensor,
  { headDim }: QkvLayout,
  count: number,
  offset: number,
  group: number,
  groupStride: number,
): HeadNormPart {
  if (weight.dim(-1) === headDim) return { weight, offset, count, group, groupStride };
  checkShape('headNorm', name, weight, [count * headDim]);
  if (count > group && groupStride !== group * headDim)
    throw new ShapeError('headNorm', 'a norm over all heads needs them side by side', { name, group, groupStride });
  return { weight, offset };
}

/** Arguments of the command; they are checked already. */
export function headNormArgs(
  x: Tensor,
  parts: readonly HeadNormPart[],
  { eps, centred = false, weightOffset = 0 }: HeadNormOptions,
): CommandArgs<'headNorm'> {
  return {
    x: x.ref(),
    rows: x.rows,
    rowStride: x.dim(-1),
    centred: Number(centred),
    eps,
    weightOffset,
    parts: parts.map(({ weight, offset, count = 1, group = count, groupStride = 0 }) => ({
      weight: weight.ref(),
      weightStride: weight.shape.length === 2 ? weight.dim(-1) : 0,
      offset,
      count,
      width: weight.dim(-1),
      group,
      groupStride,
    })),
  };
}
