// Checkpoints of the same model under other names: with a part of the path to the base model left out (saved from the
// bare model: `decoder.layers` or `layers` for `model.decoder.layers`), or from inside a wrapper (`module.`,
// `_orig_mod.`, `language_model.`). Which it is follows from the tensors, and is the same for all of them.
import { CheckpointError } from '@q/config';
import { maxPrefixes } from '../limits.js';

/** From a parameter's name to the name under which it is stored. */
export type NameMap = (parameter: string) => string;

interface Candidate {
  /** What stands before the names of the base model. */
  readonly prefix: string;
  readonly map: NameMap;
  readonly missing: readonly string[];
}

/** How parameters are named in a checkpoint. */
export interface ChosenNames {
  readonly map: NameMap;
  /** The names are those of the model, with nothing but parts of their path left out or put in front. */
  readonly isOwn: boolean;
  readonly prefixWarnings: readonly string[];
}

/** The path that all names begin with, last point included. */
function commonPath([first = '', ...others]: readonly string[]): string {
  let path = first.slice(0, first.lastIndexOf('.') + 1);
  for (const name of others)
    while (!name.startsWith(path)) path = path.slice(0, path.lastIndexOf('.', path.length - 2) + 1);
  return path;
}

/** A path, and what is left of it when parts in front are left out, down to nothing. */
function tailsOf(path: string): string[] {
  const tails = [path];
  for (let rest = path; rest !== '';) tails.push((rest = rest.slice(rest.indexOf('.') + 1)));
  return tails;
}

/** A path with any of its parts left out: `a.b.`, `b.`, `a.` and nothing. */
function shortened(path: string): string[] {
  if (path === '') return [path];
  const end = path.indexOf('.') + 1;
  const rests = shortened(path.slice(end));
  return [...rests.map((rest) => path.slice(0, end) + rest), ...rests];
}

const depth = (name: string): number => name.split('.').length;

/** What stands before the base model's names in the checkpoint, wherever one of two telling parameters is found. */
function prefixesIn(stored: Iterable<string>, names: readonly string[], base: string): Set<string> {
  const tails = names.filter((name) => name.startsWith(base)).map((name) => name.slice(base.length));
  const deepest = tails.reduce((best, tail) => (depth(tail) > depth(best) ? tail : best), tails[0] ?? '');
  const anchors = new Set([deepest, tails[0]].filter((tail) => tail !== undefined && tail !== ''));
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

/** Where the parameters outside the base model are, when the base model is under `prefix`: in front of a part of it. */
function mapUnder(stored: ReadonlyMap<string, unknown>, base: string, prefix: string): NameMap {
  const inner = tailsOf(base).find((tail) => prefix === tail || prefix.endsWith(`.${tail}`)) ?? '';
  const wrapper = prefix.slice(0, prefix.length - inner.length);
  const leading = tailsOf(prefix).map((tail) => prefix.slice(0, prefix.length - tail.length));
  const places = [wrapper, ...leading.reverse()];
  return (name) => {
    if (name.startsWith(base)) return prefix + name.slice(base.length);
    return places.map((place) => place + name).find((each) => stored.has(each)) ?? name;
  };
}

/**
 * Chooses how parameters are named in a checkpoint: as they are, or under one prefix that makes all of them present.
 * @param optional parameters that may be missing (heads that share the embedding, modules that files may lack)
 * @param expected what stands before the names in a model with a head
 * @throws CheckpointError when the names as they are do not fit and two prefixes do, or when a part of the parameters
 *   is named in one way and a part in another.
 */
export function choosePrefix(
  stored: ReadonlyMap<string, unknown>,
  names: readonly string[],
  optional: ReadonlySet<string>,
  expected = '',
): ChosenNames {
  const needed = names.filter((name) => !optional.has(name));
  const front = expected === '' ? '' : `${expected}.`;
  const inFront = needed.filter((name) => name.startsWith(front));
  const base = commonPath(inFront.length > 0 ? inFront : needed);
  const whole = base.startsWith(front) ? base : front + base;
  const own = shortened(whole);
  const candidate = (prefix: string, map: NameMap): Candidate => ({
    prefix,
    map,
    missing: needed.filter((name) => !stored.has(map(name))),
  });
  const plain = candidate(base, (name) => name);
  const asTheyAre = { map: plain.map, isOwn: true, prefixWarnings: [] };
  if (plain.missing.length === 0) return asTheyAre;
  const others = [...new Set([...own, ...prefixesIn(stored.keys(), needed, base)])]
    .filter((prefix) => prefix !== base)
    .map((prefix) => candidate(prefix, mapUnder(stored, base, prefix)));
  const best = complete(others, whole) ?? others.sort((a, b) => a.missing.length - b.missing.length)[0] ?? plain;
  if (best.missing.length > 0) refuseMixed([plain, ...others.filter(({ prefix }) => own.includes(prefix))], needed);
  // A part of the model under another name than the rest is no reason to believe in that name.
  if (best.missing.length > 0 && plain.missing.length < needed.length) return asTheyAre;
  const isOwn = own.includes(best.prefix);
  const warning = `the tensors of the checkpoint are named with "${best.prefix}" instead of "${base}" in front; they are taken as such`;
  return { map: best.map, isOwn, prefixWarnings: isOwn ? [] : [warning] };
}

/** The one that makes all parameters present; of several that under which a model with a head has them. */
function complete(candidates: readonly Candidate[], usual: string): Candidate | undefined {
  const found = candidates.filter(({ missing }) => missing.length === 0);
  const best = found.find(({ prefix }) => prefix === usual) ?? found[0];
  if (found.length < 2 || best.prefix === usual) return best;
  throw new CheckpointError('load', 'the checkpoint holds the model more than once, under different names', {
    prefixes: found.map(({ prefix }) => prefix),
    fix: 'save the one that is meant by itself',
  });
}

/** Throws when every parameter is there, and each way of naming them leaves some out. */
function refuseMixed(candidates: readonly Candidate[], needed: readonly string[]): void {
  const never = needed.filter((name) => candidates.every(({ missing }) => missing.includes(name)));
  if (never.length > 0) return;
  const partly = candidates.filter(({ missing }) => missing.length < needed.length);
  throw new CheckpointError('load', 'the tensors of the checkpoint are named in more than one way', {
    prefixes: partly.map(({ prefix }) => prefix),
    named: partly.map(({ map, missing }) => map(needed.find((name) => !missing.includes(name))!)),
    why: 'a part of the model is under one name and a part under another: it is of two saves',
    fix: 'fetch the checkpoint again, or save it anew',
  });
}
