// Checkpoints of the same model under other names: saved from the bare model (no `model.` in front), or from inside a
// wrapper (`module.`, `_orig_mod.`, `language_model.`). Which it is follows from the tensors.
import { CheckpointError } from '@q/config';
import { maxPrefixes } from '../limits.js';

/** From the name of a tensor in files of a model with a head to the one that this checkpoint has. */
export type NameMap = (name: string) => string;

interface Candidate {
  /** What stands before the names of the base model. */
  readonly prefix: string;
  readonly map: NameMap;
  readonly missing: number;
}

const head = (name: string): string => name.slice(0, name.indexOf('.') + 1);

/** The first part that most parameters share, point included: `model.`; `` when they share none. */
function basePrefix(names: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const name of names) counts.set(head(name), (counts.get(head(name)) ?? 0) + 1);
  const [best = '', count = 0] = [...counts].sort((a, b) => b[1] - a[1])[0] ?? [];
  return count > names.length / 2 ? best : '';
}

const depth = (name: string): number => name.split('.').length;

/** What stands before the base model's names in the checkpoint, wherever one of two telling parameters is found. */
function prefixesIn(stored: Iterable<string>, parameters: readonly (readonly string[])[], base: string): Set<string> {
  const inside = parameters.filter(([usual]) => usual.startsWith(base));
  const [first] = inside;
  if (first === undefined) return new Set();
  const deepest = inside.reduce((best, names) => (depth(names[0]) > depth(best[0]) ? names : best), first);
  const telling = [...deepest, ...first].filter((name) => name.startsWith(base) && name !== base);
  const anchors = new Set(telling.map((name) => name.slice(base.length)));
  const prefixes = new Set<string>();
  for (const name of stored) {
    for (const anchor of anchors) {
      if (name !== anchor && !name.endsWith(`.${anchor}`)) continue;
      prefixes.add(name.slice(0, name.length - anchor.length));
      if (prefixes.size === maxPrefixes) return prefixes;
    }
  }
  return prefixes;
}

/** Where the tensors outside the base model are, when the base model is under `prefix`. */
function mapUnder(stored: ReadonlyMap<string, unknown>, base: string, prefix: string): NameMap {
  const wrapper = prefix.endsWith(base) ? prefix.slice(0, prefix.length - base.length) : prefix;
  return (name) => {
    if (name.startsWith(base)) return prefix + name.slice(base.length);
    return [wrapper + name, prefix + name].find((each) => stored.has(each)) ?? name;
  };
}

/**
 * Chooses how tensors are named in a checkpoint: as they are, or under one prefix that makes all of them present.
 * @param parameters every name under which each may be stored, the usual one first
 * @param optional parameters that may be missing (heads that share the embedding)
 * @param expected what stands before the names in a model with a head
 * @throws CheckpointError when the names as they are do not fit and two prefixes do.
 */
export function choosePrefix(
  stored: ReadonlyMap<string, unknown>,
  parameters: ReadonlyMap<string, readonly string[]>,
  optional: ReadonlySet<string>,
  expected = '',
): { map: NameMap; prefixWarnings: string[] } {
  const all = [...parameters.values()];
  const base = basePrefix(all.map(([usual]) => usual));
  const needed = [...parameters].flatMap(([parameter, names]) => (optional.has(parameter) ? [] : [names]));
  const candidate = (prefix: string, map: NameMap): Candidate => ({
    prefix,
    map,
    missing: needed.filter((names) => !names.some((name) => stored.has(map(name)))).length,
  });
  const plain = candidate(base, (name) => name);
  if (plain.missing === 0) return { map: plain.map, prefixWarnings: [] };
  const others = [...prefixesIn(stored.keys(), all, base)]
    .filter((prefix) => prefix !== base)
    .map((prefix) => candidate(prefix, mapUnder(stored, base, prefix)));
  const whole = others.filter(({ missing }) => missing === 0);
  if (whole.length > 1)
    throw new CheckpointError('load', 'the checkpoint holds the model more than once, under different names', {
      prefixes: whole.map(({ prefix }) => prefix),
      fix: 'save the one that is meant by itself',
    });
  const best = whole[0] ?? others.sort((a, b) => a.missing - b.missing)[0];
  // A part of the model under another name than the rest is no reason to believe in that name.
  if (!best || (best.missing > 0 && plain.missing < needed.length)) return { map: plain.map, prefixWarnings: [] };
  // A bare model in the checkpoint of one with a head, and the reverse, as Python reads them without a word.
  const isUsual = best.prefix === `${expected}.${base}` || (best.prefix === '' && base === `${expected}.`);
  if (expected !== '' && isUsual) return { map: best.map, prefixWarnings: [] };
  const named =
    best.prefix === '' ? `without "${base}" in front` : `with "${best.prefix}" instead of "${base}" in front`;
  return {
    map: best.map,
    prefixWarnings: [`the tensors of the checkpoint are named ${named}; they are taken as such`],
  };
}
