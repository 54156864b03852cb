// Which tokens are the special ones. Several files say it; they are put together as transformers 5 does:
// 1. tokenizer_config.json names them, as texts or objects, and lists added tokens by id (`added_tokens_decoder`).
// 2. Only without that list do special_tokens_map.json (over what tokenizer_config.json says) and added_tokens.json
//    count.
// 3. What is not mentioned at all has the default of the Python class.
import { addedTokenOf, sameToken, specialToken, type AddedToken } from './added-tokens.js';
import { isObject, Section, shown, type Json } from './section.js';

/** Names that every tokenizer may have a token for. */
export const specialTokenNames = [
  'bos_token',
  'eos_token',
  'unk_token',
  'sep_token',
  'pad_token',
  'cls_token',
  'mask_token',
] as const;

/** The files that speak of special tokens, as they were read. */
export interface SpecialTokenFiles {
  /** tokenizer_config.json, or `{}`. */
  readonly config: Json;
  /** special_tokens_map.json. */
  readonly map?: Json;
  /** added_tokens.json: ids by text. */
  readonly added?: Json;
  /** `added_tokens` of tokenizer.json by id, when there is one. */
  readonly own?: ReadonlyMap<number, AddedToken>;
  /** What the Python class takes for names that no file mentions. */
  readonly defaults?: Readonly<Record<string, string | null>>;
  /** Further tokens of the vocabulary file (SentencePiece's control and user symbols). */
  readonly further?: readonly AddedToken[];
  /** Whether a mask token given as a text takes the space before it. */
  readonly stripsMask?: boolean;
  /** Padding token of tokenizer.json's `padding`. */
  readonly padding?: string;
}

export interface SpecialTokens {
  /** Token of each name: `bos_token`, `eos_token`, ... and the model's own, such as `image_token`. */
  readonly named: ReadonlyMap<string, AddedToken>;
  /** To be added to the tokenizer, in order, as far as it lacks them. */
  readonly toAdd: (known: Iterable<AddedToken>) => AddedToken[];
}

const configFile = 'tokenizer_config.json';
const mapFile = 'special_tokens_map.json';

/** A token that a file gives as a text or an object; undefined for null. */
function tokenOf(value: unknown, file: string, path: string, special: boolean): AddedToken | undefined {
  if (value === null || value === undefined) return undefined;
  if (typeof value === 'string') return specialToken(value);
  if (!isObject(value)) new Section(file, '', {}).fail(path, `is ${shown(value)}, not a token`);
  return addedTokenOf(new Section(file, path, value as Json), special || undefined);
}

/** The settings of tokenizer_config.json, and of special_tokens_map.json where it counts, with the file of each. */
function settingsOf({ config, map }: SpecialTokenFiles): Map<string, { value: unknown; file: string }> {
  const settings = new Map(Object.entries(config).map(([key, value]) => [key, { value, file: configFile }]));
  const extra = settings.get('extra_special_tokens') ?? settings.get('additional_special_tokens');
  if (extra) settings.set('extra_special_tokens', extra);
  if (config.added_tokens_decoder !== undefined || !map) return settings;
  for (const [key, value] of Object.entries(map)) {
    const before = settings.get(key)?.value;
    const joined = key === 'extra_special_tokens' && Array.isArray(value) && Array.isArray(before);
    settings.set(key, { value: joined ? [...(before as unknown[]), ...(value as unknown[])] : value, file: mapFile });
  }
  const further = settings.get('additional_special_tokens');
  if (further && !settings.has('extra_special_tokens')) settings.set('extra_special_tokens', further);
  return settings;
}

function listedTokens(files: SpecialTokenFiles, isSpecial: (text: string) => boolean): Map<number, AddedToken> {
  const { config, added, own } = files;
  const listed = new Map<number, AddedToken>();
  if (config.added_tokens_decoder !== undefined) {
    const section = new Section(configFile, '', config).section('added_tokens_decoder');
    for (const id of Object.keys(section.value)) {
      if (!/^\d{1,8}$/.test(id)) section.fail(id, 'is not the id of a token');
      listed.set(Number(id), addedTokenOf(section.section(id)));
    }
    return listed;
  }
  for (const [content, id] of Object.entries(added ?? {})) {
    if (!Number.isSafeInteger(id) || (id as number) < 0)
      new Section('added_tokens.json', '', {}).fail(content, `is ${shown(id)}, not an id`);
    const special = isSpecial(content);
    listed.set(id as number, { ...specialToken(content), normalized: !special, special });
  }
  for (const [id, token] of own ?? []) listed.set(id, token);
  return listed;
}

/** @throws CheckpointError that names the file and the token that is none. */
export function specialTokensOf(files: SpecialTokenFiles): SpecialTokens {
  const settings = settingsOf(files);
  const named = namedTokens(files, settings);
  const extra = extraTokens(files, settings);
  const specialTexts = new Set([...named.values(), ...extra].map(({ content }) => content));
  const listed = listedTokens(files, (text) => specialTexts.has(text));
  const byText = new Map([...listed.values()].map((token) => [token.content, token]));
  for (const name of specialTokenNames) {
    const token = byText.get(named.get(name)?.content ?? '');
    if (token) named.set(name, token);
  }
  const namedTexts = new Set([...named.values()].map(({ content }) => content));
  const toAdd = (known: Iterable<AddedToken>): AddedToken[] => {
    const there = [...known];
    const inOrder = [...listed].sort(([a], [b]) => a - b).map(([, token]) => token);
    const byContent = new Map(there.map((token) => [token.content, token]));
    const wanted = inOrder.filter((token) => {
      const other = byContent.get(token.content);
      return !other || !sameToken(other, token);
    });
    const texts = new Set([...there, ...wanted].map(({ content }) => content));
    for (const token of [...named.values(), ...extra]) {
      if (texts.has(token.content)) continue;
      texts.add(token.content);
      wanted.push(token);
    }
    return wanted.map((token) => (namedTexts.has(token.content) ? { ...token, special: true } : token));
  };
  return { named, toAdd };
}

type Settings = ReadonlyMap<string, { value: unknown; file: string }>;

function namedTokens(
  { defaults = {}, padding, stripsMask = false }: SpecialTokenFiles,
  settings: Settings,
): Map<string, AddedToken> {
  const named = new Map<string, AddedToken>();
  const set = (name: string, value: unknown, file: string) => {
    const token = tokenOf(value, file, name, file === mapFile);
    if (token) named.set(name, token);
  };
  for (const name of specialTokenNames) {
    const setting = settings.get(name) ?? { value: defaultOf(name, defaults, padding), file: configFile };
    set(name, setting.value, setting.file);
  }
  const mask = named.get('mask_token');
  if (mask && stripsMask && !isObject(settings.get('mask_token')?.value))
    named.set('mask_token', { ...mask, lstrip: true });
  for (const [name, { value, file }] of settings) if (isOwnName(name) && isToken(value)) set(name, value, file);
  for (const [name, value] of Object.entries(defaults))
    if (isOwnName(name) && !named.has(name)) set(name, value, configFile);
  const extra = settings.get('extra_special_tokens');
  if (isObject(extra?.value)) for (const [name, value] of Object.entries(extra.value)) set(name, value, extra.file);
  return named;
}

type Defaults = NonNullable<SpecialTokenFiles['defaults']>;

const defaultOf = (name: string, defaults: Defaults, padding: string | undefined): string | null | undefined =>
  name === 'pad_token' && padding !== undefined ? padding : Object.hasOwn(defaults, name) ? defaults[name] : undefined;

/** Whether a setting is a special token of the model's own, such as `image_token`. */
const isOwnName = (name: string): boolean =>
  name.endsWith('_token') && !(specialTokenNames as readonly string[]).includes(name);

const isToken = (value: unknown): boolean =>
  typeof value === 'string' || (isObject(value) && typeof value.content === 'string');

function extraTokens({ further = [] }: SpecialTokenFiles, settings: Settings): AddedToken[] {
  const extra = settings.get('extra_special_tokens');
  if (!extra || extra.value === null || isObject(extra.value)) return extra ? [] : [...further];
  const { value, file } = extra;
  if (!Array.isArray(value)) return new Section(file, '', {}).fail('extra_special_tokens', 'is not a list of tokens');
  return value.flatMap((item, i) => tokenOf(item, file, `extra_special_tokens[${i}]`, false) ?? []);
}
