import type { Sizes } from './sizes.js';
import { type TieRules, bundle, tiedOutside } from './ties.js';
import { type Node, type Unsplittable, isLayer, partsOf } from './tree.js';
import { isInside } from './types.js';

interface Search {
  /** The node that did not fit. */
  node: Node;
  waiting: readonly Node[];
  /** Bytes that what is looked for may take. */
  room: number;
  sizes: Sizes;
  ties: TieRules;
  whole: Unsplittable;
}

/**
 * The first node among those waiting, or inside one of them, that fits, and what waits without it.
 * Source: accelerate `fallback_allocate`; sizes with a fraction (int4, bool) and ties to modules already passed over,
 * where accelerate fails with a Python error, are numbers and modules like any other here.
 */
export const fallbackNode = (search: Search): { node: Node; rest: Node[] } | undefined => {
  const { node, waiting, room, sizes, ties, whole } = search;
  let candidates = [...waiting];
  while (candidates.length > 0) {
    const [candidate, ...others] = candidates as [Node, ...Node[]];
    const rest = (): Node[] => without(candidate, waiting, ties.strict);
    const tied = tiedOutside(candidate.path, ties).length > 0;
    const bytes = tied ? bundle(candidate, [...rest(), node], sizes, ties).bytes : (sizes.get(candidate.path) ?? 0);
    if (bytes <= room) return { node: candidate, rest: rest() };
    // A part of what is tied to the node itself cannot move alone, but a part of a larger module may.
    candidates = isLayer(candidate, whole) ? others : [...partsOf(candidate, ties.strict), ...others];
  }
  return undefined;
};

/** What waits, with the modules above a node split and the node taken out. */
const without = (node: Node, waiting: readonly Node[], strict: boolean): Node[] =>
  waiting.flatMap((other) => {
    if (other === node) return [];
    return isInside(node.path, other.path) ? without(node, partsOf(other, strict), strict) : [other];
  });
