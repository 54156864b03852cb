import type { Program } from './backend.js';
import type { Tensor } from './tensor.js';

/** A part of a step, which is what runs again and again: a list of segments, one behind the other. */
export type Segment =
  /** Recorded commands of one device. */
  | { readonly kind: 'program'; readonly program: Program }
  /** The bytes of a tensor, to a tensor of another device. */
  | { readonly kind: 'copy'; readonly from: Tensor; readonly to: Tensor }
  /** What the host does anew each time; it waits for no device. */
  | { readonly kind: 'host'; readonly run: () => void };

/**
 * Queues a step: each segment behind those before it, whatever devices they are of. Returns at once.
 * @throws DisposedError; what a host segment throws
 */
export function replaySegments(segments: readonly Segment[]): void {
  for (const segment of segments) {
    if (segment.kind === 'program') segment.program.replay();
    else if (segment.kind === 'copy') segment.to.backend.receive(segment.from, segment.to);
    else segment.run();
  }
}

/** Frees the programs; the tensors of copies are their owners'. */
export function disposeSegments(segments: readonly Segment[]): void {
  for (const segment of segments) if (segment.kind === 'program') segment.program.dispose();
}
