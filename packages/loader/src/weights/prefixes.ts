// Checkpoints of the same model under other names: with a part of the path to the base model left out (saved from the
// bare model: `decoder.layers` or `layers` for `model.decoder.layers`), or from inside a wrapper (`module.`,
// `_orig_mod.`, `language_model.`). Which it is follows from the tensors, and is the same for all of them.
import { CheckpointError } from '@q/config';
import { maxPrefixes } from '../limits.js';

/** From the name of a tensor in files of a model with a head to the one that this checkpoint has. */
export type NameMap = (name: string) => string;

/** Every name under which a parameter may be stored, the usual one first. */
type Names = readonly string[];

interface Candidate {
  /** What stands before the names of the base model. */
  readonly prefix: string;
  readonly map: NameMap;
  readonly missing: ReadonlySet<Names>;
}

/** How tensors are named in a checkpoint. */
export interface ChosenNames {
  readonly map: NameMap;
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
function prefixesIn(stored: Iterable<string>, parameters: readonly Names[], base: string): Set<string> {
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

/** Where the tensors outside the base model are, when the base model is under `prefix`: in front of a part of it. */
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
 * Chooses how tensors are named in a checkpoint: as they are, or under one prefix that makes all parameters present.
 * @param parameters every name under which each may be stored, the usual one first
 * @param optional parameters that may be missing (heads that share the embedding, modules that files may lack)
 * @param expected what stands before the names in a model with a head
 * @throws CheckpointError when the names as they are do not fit and two prefixes do, or when a part of the parameters
 *   is named in one way and a part in another.
 */
export function choosePrefix(
  stored: ReadonlyMap<string, unknown>,
  parameters: ReadonlyMap<string, Names>,
  optional: ReadonlySet<string>,
  expected = '',
): ChosenNames {
  const needed = [...parameters].flatMap(([parameter, names]) => (optional.has(parameter) ? [] : [names]));
  const usual = needed.map(([name]) => name);
  const front = expected === '' ? '' : `${expected}.`;
  const inFront = usual.filter((name) => name.startsWith(front));
  const base = commonPath(inFront.length > 0 ? inFront : usual);
  const whole = base.startsWith(front) ? base : front + base;
  const own = shortened(whole);
  const candidate = (prefix: string, map: NameMap): Candidate => ({
    prefix,
    map,
    missing: new Set(needed.filter((names) => !names.some((name) => stored.has(map(name))))),
  });
  const plain = candidate(base, (name) => name);
  const asTheyAre = { map: plain.map, prefixWarnings: [] };
  if (plain.missing.size === 0) return asTheyAre;
  const others = [...new Set([...own, ...prefixesIn(stored.keys(), needed, base)])]
    .filter((prefix) => prefix !== base)
    .map((prefix) => candidate(prefix, mapUnder(stored, base, prefix)));
  const best = complete(others, whole) ?? others.sort((a, b) => a.missing.size - b.missing.size)[0] ?? plain;
  if (best.missing.size > 0) refuseMixed([plain, ...others.filter(({ prefix }) => own.includes(prefix))], needed);
  // A part of the model under another name than the rest is no reason to believe in that name.
  if (best.missing.size > 0 && plain.missing.size < needed.length) return asTheyAre;
  const warning = `the tensors of the checkpoint are named with "${best.prefix}" instead of "${base}" in front; they are taken as such`;
  return { map: best.map, prefixWarnings: own.includes(best.prefix) ? [] : [warning] };
}

/** The one that makes all parameters present; of several that under which a model with a head has them. */
function complete(candidates: readonly Candidate[], usual: string): Candidate | undefined {
  const found = candidates.filter(({ missing }) => missing.size === 0);
  const best = found.find(({ prefix }) => prefix === usual) ?? found[0];
  if (found.length < 2 || best.prefix === usual) return best;
  throw new CheckpointError('load', 'the checkpoint holds the model more than once, under different names', {
    prefixes: found.map(({ prefix }) => prefix),
    fix: 'save the one that is meant by itself',
  });
}

/** Throws when every parameter is there, and each way of naming them leaves some out. */
function refuseMixed(candidates: readonly Candidate[], needed: readonly Names[]): void {
  const never = needed.filter((names) => candidates.every(({ missing }) => missing.has(names)));
  if (never.length > 0) return;
  const partly = candidates.filter(({ missing }) => missing.size < needed.length);
  throw new CheckpointError('load', 'the tensors of the checkpoint are named in more than one way', {
    prefixes: partly.map(({ prefix }) => prefix),
    named: partly.map(({ map, missing }) => map(needed.find((names) => !missing.has(names))![0])),
    why: 'a part of the model is under one name and a part under another: it is of two saves',
    fix: 'fetch the checkpoint again, or save it anew',
  });
}
