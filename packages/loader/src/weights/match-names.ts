// Which stored tensor fills which parameter. One pure function of names, shapes and slots decides it; what the tensors
// say wins over what config.json says of them, and each such decision is a line for the user.
import { CheckpointError, UnsupportedError } from '@q/config';
import type { ParameterSlot, Source } from '@q/tensor';
import { helperOwner, isPacked, locateWeight } from '../formats/registry.js';
import { groupBy } from '../group-by.js';
import { countOf, listNames } from '../list-names.js';
import { foreignFormat, type StoredTensorInfo } from './foreign-formats.js';
import { choosePrefix, type NameMap } from './prefixes.js';
import { isShared, sourcesOf, wholeShape, type Part } from './sources.js';

export type { StoredTensorInfo } from './foreign-formats.js';

export interface MatchRequest {
  /** Every tensor of the checkpoint, helpers of quantized weights included. */
  readonly tensors: ReadonlyMap<string, StoredTensorInfo>;
  /** What must be filled, with where files may have it; `tiedTo` where config.json ties weights. */
  readonly slots: readonly ParameterSlot[];
  /** Parameters that share memory in models that tie: target to source. */
  readonly tied?: Readonly<Record<string, string>>;
  /** Tensors that hold no weights and are passed over without a word. */
  readonly ignored?: readonly RegExp[];
  /** Tensors that an index promises and no shard has, with the shard that should. */
  readonly absent?: ReadonlyMap<string, string>;
  readonly folder: string;
  /** What stands before the base model's names in a model with a head. */
  readonly basePrefix?: string;
  /** Modules that a checkpoint may lack as a whole, by their path in the base model. */
  readonly optionalModules?: readonly string[];
}

export interface NameMatch {
  /** Parameter to what this checkpoint has of it. Tied parameters whose source is read are not in it. */
  readonly stored: ReadonlyMap<string, Source>;
  /** Parameters that config.json ties although both are stored: tied if their values are equal. Target to source. */
  readonly compare: ReadonlyMap<string, string>;
  /** Of the places where a parameter may be, the one where it was: where it is saved, as in Python without a prefix. */
  readonly saved: ReadonlyMap<string, Source>;
  /** Optional modules of which the checkpoint has nothing. */
  readonly without: readonly string[];
  readonly warnings: readonly string[];
}

/** Where each parameter may be, the usual place first. */
type Places = ReadonlyMap<string, readonly Source[]>;

const op = 'load';

/**
 * Decides where every parameter comes from.
 * @throws CheckpointError for parameters that nothing fills (naming them, and a head that Python would fill with random
 *   numbers), and for shapes that config.json contradicts; UnsupportedError naming a quantized format that Q does not
 *   read.
 */
export function matchNames(request: MatchRequest): NameMatch {
  const { slots, tensors } = request;
  const places = new Map(slots.map((slot) => [slot.name, sourcesOf(slot)]));
  const tiedTo = new Map(
    slots.flatMap(({ name, tiedTo: source }) => (source === undefined ? [] : [[name, source] as const])),
  );
  const optional = slots.filter(isOptional).map(({ name }) => name);
  const modules = optionalParameters(request);
  const { map, prefixWarnings } = choosePrefix(
    tensors,
    new Map([...places].map(([name, sources]) => [name, sources.map((source) => source.name)])),
    new Set([...tiedTo.keys(), ...Object.keys(request.tied ?? {}), ...optional, ...[...modules.values()].flat()]),
    request.basePrefix,
  );
  refuseForeign(request, places, map);
  const { stored, saved } = find(request, places, map);
  const compare = new Map<string, string>();
  const warnings = [...prefixWarnings];
  for (const [target, source] of tiedTo) {
    if (stored.has(target) && stored.has(source)) compare.set(target, source);
    else if (stored.has(target)) {
      stored.set(source, stored.get(target)!);
      stored.delete(target);
      warnings.push(`${source} is not stored; it is read from ${target}, to which config.json ties it`);
    }
  }
  const isThere = (name: string) => stored.has(name) || isPromised(request, places.get(name)!, map);
  const without = [...modules].filter(([, names]) => !names.some(isThere)).map(([module]) => module);
  const lacked = without.flatMap((module) => modules.get(module)!);
  const excused = new Set([...tiedTo.keys(), ...lacked, ...optional.filter((name) => !isThere(name))]);
  const missing = slots.map(({ name }) => name).filter((name) => !stored.has(name) && !excused.has(name));
  if (missing.length > 0) throw missingError(request, missing, stored, places, map);
  checkShapes(request, stored);
  warnings.push(...without.map(lackLine), ...surplusWarnings(request, stored));
  return { stored, compare, saved, without, warnings };
}

/** Whether an index says that a shard has the parameter, which is not so. */
const isPromised = ({ absent = new Map() }: MatchRequest, sources: readonly Source[], map: NameMap): boolean =>
  sources.some((source) => absent.has(map(source.name)));

const lackLine = (module: string): string =>
  `the checkpoint has no ${module}: the model is without one, where Python would fill it with random numbers`;

/** Optional modules that the model has, with their parameters. */
function optionalParameters({ slots, optionalModules = [], basePrefix = '' }: MatchRequest): Map<string, string[]> {
  const front = basePrefix === '' ? '' : `${basePrefix}.`;
  const found = optionalModules.map((module): [string, string[]] => {
    const isInside = ({ name }: ParameterSlot) =>
      name.startsWith(`${module}.`) || name.startsWith(`${front}${module}.`);
    return [module, slots.filter(isInside).map(({ name }) => name)];
  });
  return new Map(found.filter(([, names]) => names.length > 0));
}

/** Of the places of each parameter the first that the checkpoint has, under its name there and under its usual one. */
function find(
  request: MatchRequest,
  places: Places,
  map: NameMap,
): { stored: Map<string, Source>; saved: Map<string, Source> } {
  const { tensors } = request;
  const stored = new Map<string, Source>();
  const saved = new Map<string, Source>();
  const quantized = new Set([...tensors.keys()].map(helperOwner));
  const nameOf = (source: Source) => locateWeight(tensors, map(source.name)) ?? map(source.name);
  for (const [parameter, sources] of places) {
    const source = sources.find((each) => tensors.has(nameOf(each)));
    if (!source) continue;
    const name = nameOf(source);
    stored.set(
      parameter,
      quantized.has(name) ? quantizedSource(request, parameter, source, name) : { ...source, name },
    );
    saved.set(parameter, source);
  }
  return { stored, saved };
}

/** What is quantized is one matrix [out, in] of its own. @throws CheckpointError for a part of another matrix */
function quantizedSource({ tensors, folder }: MatchRequest, parameter: string, source: Source, name: string): Source {
  if (!isShared(source)) return { name };
  throw new CheckpointError(op, 'a quantized tensor holds several weights', {
    folder,
    file: tensors.get(name)!.file,
    tensor: name,
    parameter,
    why: 'codes and scales of a part cannot be told from those of the others',
    fix: 'take the unquantized checkpoint from which it was made, and quantize it with loadIn4bit or loadIn8bit',
  });
}

const isOptional = (slot: ParameterSlot): boolean => slot.kind === 'tensor' && slot.optional === true;

/** Throws UnsupportedError when the layers are stored in a format of another library. */
function refuseForeign({ tensors, slots, folder }: MatchRequest, places: Places, map: NameMap): void {
  const layers = slots.flatMap((slot) => {
    const name = map(places.get(slot.name)![0].name);
    if (!name.endsWith('.weight') || locateWeight(tensors, name) !== undefined) return [];
    return [{ module: name.slice(0, -'.weight'.length), slot }];
  });
  const foreign = foreignFormat(tensors, layers);
  if (!foreign) return;
  throw new UnsupportedError(op, `the weights are quantized in a format that cannot be loaded: ${foreign.what}`, {
    folder,
    tensor: foreign.tensor,
    why: 'Q loads float32, float16 and bfloat16, and what bitsandbytes writes (nf4, fp4, int8)',
    fix: 'take the unquantized checkpoint from which it was made, and quantize it with loadIn4bit or loadIn8bit',
  });
}

function missingError(
  { tied = {}, absent = new Map(), folder, tensors }: MatchRequest,
  missing: readonly string[],
  stored: ReadonlyMap<string, Source>,
  places: Places,
  map: NameMap,
): CheckpointError {
  const [promised] = missing
    .flatMap((parameter) => places.get(parameter)!.map(({ name }) => [name, absent.get(map(name))] as const))
    .filter(([, shard]) => shard !== undefined);
  const head = missing.find((name) => Object.hasOwn(tied, name) && stored.has(tied[name]));
  if (head !== undefined && missing.length === 1 && !promised)
    return new CheckpointError(op, `${head} is not stored, and config.json does not tie it to ${tied[head]}`, {
      folder,
      why: 'Python would fill it with random numbers, and so would every text be',
      fix: `if the model shares ${tied[head]}, set tie_word_embeddings to true in config.json; else fetch the whole checkpoint`,
    });
  const usual = (parameters: Iterable<string>) => [
    ...new Set([...parameters].map((parameter) => places.get(parameter)![0].name)),
  ];
  const names = usual(missing);
  return new CheckpointError(
    op,
    `the checkpoint lacks ${names.length} of ${usual(places.keys()).length} tensors: ${listNames(names)}`,
    {
      folder,
      ...(promised && { promised: `the index says that ${promised[1]} has ${promised[0]}` }),
      why: 'config.json describes a model that has them',
      has: listNames([...tensors.keys()].filter((name) => helperOwner(name) === undefined)),
      fix: promised ? 'index and shards are not of the same save: fetch the checkpoint again' : undefined,
    },
  );
}

/** Parameters by the tensor that they are in. */
function partsByTensor(slots: readonly ParameterSlot[], stored: ReadonlyMap<string, Source>): Map<string, Part[]> {
  const parts = slots.flatMap(({ name, shape }): Part[] => {
    const source = stored.get(name);
    return source ? [{ parameter: name, shape, source }] : [];
  });
  return groupBy(parts, ({ source }) => source.name);
}

function checkShapes({ tensors, slots, folder }: MatchRequest, stored: ReadonlyMap<string, Source>): void {
  const wrong = [...partsByTensor(slots, stored)].flatMap(([from, parts]) => {
    if (isPacked(tensors, from)) return [];
    const wanted = wholeShape(from, parts);
    const { shape } = tensors.get(from)!;
    const equal = shape.length === wanted.length && shape.every((size, axis) => size === wanted[axis]);
    return equal ? [] : [{ from, shape, wanted }];
  });
  if (wrong.length === 0) return;
  const lines = wrong.map(
    ({ from, shape, wanted }) => `${from} is [${shape.join()}], by config.json [${wanted.join()}]`,
  );
  throw new CheckpointError(op, `a tensor has another shape than the model: ${listNames(lines)}`, {
    folder,
    file: tensors.get(wrong[0].from)!.file,
    tensor: wrong[0].from,
    got: wrong[0].shape,
    expected: wrong[0].wanted,
    why: 'config.json and the weights belong to different models',
  });
}

/** Lines about tensors that nothing needs, as Python warns. */
function surplusWarnings(
  { tensors, folder, ignored = [] }: MatchRequest,
  stored: ReadonlyMap<string, Source>,
): string[] {
  const used = new Set([...stored.values()].map(({ name }) => name));
  const surplus = [...tensors.keys()].filter(
    (name) => !used.has(name) && !used.has(helperOwner(name) ?? name) && !ignored.some((pattern) => pattern.test(name)),
  );
  if (surplus.length === 0) return [];
  const layer = furtherLayer(used, surplus);
  if (layer !== undefined)
    throw new CheckpointError(op, `the checkpoint has more layers than config.json says: ${layer}`, {
      folder,
      surplus: listNames(surplus),
      why: 'without its last layers a model writes nonsense: config.json and the weights belong to different models',
      fix: 'fetch the config.json of these weights, or correct its number of layers',
    });
  return [`${countOf(surplus.length, 'tensor')} of the checkpoint that the model does not have: ${listNames(surplus)}`];
}

/** Names by the numbered block that they are in (`model.layers.3`), without it; no helpers of quantized weights. */
function blocksOf(names: Iterable<string>): Map<string, Set<string>> {
  const blocks = new Map<string, Set<string>>();
  for (const name of names) {
    const [, block, tail] = /^((?:[^.]+\.)*?\d+)\.(.+)$/.exec(name) ?? [];
    if (block === undefined || helperOwner(name) !== undefined) continue;
    const tails = blocks.get(block);
    if (tails) tails.add(tail);
    else blocks.set(block, new Set([tail]));
  }
  return blocks;
}

/** A block of surplus tensors that is built just as those of the model: a layer that config.json does not count. */
function furtherLayer(used: ReadonlySet<string>, surplus: readonly string[]): string | undefined {
  const list = (block: string) => block.slice(0, block.lastIndexOf('.'));
  const shape = (tails: ReadonlySet<string>) => [...tails].sort().join('\n');
  const known = new Set([...blocksOf(used)].map(([block, tails]) => `${list(block)}\n${shape(tails)}`));
  const found = [...blocksOf(surplus)].find(([block, tails]) => known.has(`${list(block)}\n${shape(tails)}`));
  return found?.[0];
}
