import type { Checkpoint } from './checkpoint.js';
import { helperOwner } from './formats/registry.js';

export interface KeyComparison {
  /** Expected names that the checkpoint lacks, in the order given. */
  readonly missing: readonly string[];
  /**
   * Names of the checkpoint that nobody expects, in file order; helper tensors of expected weights are not among them.
   */
  readonly unexpected: readonly string[];
}

/**
 * Compares the names in a checkpoint with those a model expects. Tied weights and renamed prefixes are the caller's
 * affair.
 * @param expected full names of weights, biases and buffers, without the helper tensors of quantized formats
 */
export function compareKeys(
  checkpoint: Pick<Checkpoint, 'tensors' | 'unsupported' | 'has'>,
  expected: Iterable<string>,
): KeyComparison {
  const wanted = new Set(expected);
  const isWanted = (name: string) => wanted.has(name) || wanted.has(helperOwner(name) ?? '');
  const present = [...checkpoint.tensors.keys(), ...checkpoint.unsupported.keys()];
  return {
    missing: [...wanted].filter((name) => !checkpoint.has(name)),
    unexpected: present.filter((name) => !isWanted(name)),
  };
}
