import { MAX_POSITIONS } from './limits.js';
import type { RopeConfig } from './rope.js';

/**
 * The longest context in tokens that a model can be asked for: what it was trained for, or `factor` times the original
 * length where its positions are stretched (yarn, linear, dynamic and longrope files may keep the trained length in
 * `max_position_embeddings`).
 */
export function maxContext(config: { readonly maxPositionEmbeddings: number; readonly rope: RopeConfig }): number {
  const { maxPositionEmbeddings: trained, rope } = config;
  if (rope.type === 'default' || rope.type === 'llama3') return trained;
  const reach = Math.floor(rope.factor * rope.originalMaxPositionEmbeddings);
  return Math.min(Math.max(trained, reach), MAX_POSITIONS);
}
