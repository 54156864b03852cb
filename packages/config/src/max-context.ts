import type { RopeConfig } from './rope.js';

/**
 * Most tokens of a sequence: the length that the model was trained for, or what its rotary scaling makes of it. `yarn`
 * and `longrope` reach `factor` times the original length; `linear` and `dynamic` files keep the trained length in
 * `max_position_embeddings`, and reach `factor` times that.
 */
export function maxContext({
  maxPositionEmbeddings,
  rope,
}: {
  maxPositionEmbeddings: number;
  rope: RopeConfig;
}): number {
  switch (rope.type) {
    case 'default':
    case 'llama3': // max_position_embeddings is the extended length already
      return maxPositionEmbeddings;
    case 'linear':
      return Math.floor(rope.factor * maxPositionEmbeddings);
    default:
      return Math.max(maxPositionEmbeddings, Math.floor(rope.factor * rope.originalMaxPositionEmbeddings));
  }
}
