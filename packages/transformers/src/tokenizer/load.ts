// The tokenizer of a folder, from whatever files it has.
import { readdir } from 'node:fs/promises';
import { assertKnownKeys, QError } from '@q/config';
import { hubOptionNames, missingFile, modelFolder, type HubOptions } from '../files.js';
import { withChatTemplates } from '../chat/templates.js';
import { tokenizerLimits, tokenizerLimitsWith, type TokenizerLimits } from '../limits.js';
import type { AddedToken } from './added-tokens.js';
import { classDefaults, tokenizerClassOf } from './classes.js';
import { convertVocabulary } from './convert/convert.js';
import { parseTokenizer, type ParseOptions } from './parse.js';
import { readTokenizerFile, readTokenizerJson } from './read.js';
import { checkNesting, isObject, type Json } from './section.js';
import { specialTokensOf } from './special-tokens.js';
import { Tokenizer } from './tokenizer.js';

/** Options of {@link AutoTokenizer}. */
export interface TokenizerLoadOptions extends HubOptions {
  /** Other limits than {@link tokenizerLimits}: sizes, depths, times. `Infinity` means none. */
  readonly tokenizerLimits?: Partial<TokenizerLimits>;
}

/** Loads tokenizers. */
export const AutoTokenizer = {
  /**
   * Reads tokenizer.json, or makes the same of tokenizer.model (SentencePiece), vocab.json with merges.txt, or
   * vocab.txt.
   * @param idOrPath folder, Hub id, or `@q/nano`
   * @throws CheckpointError when the model has none of these files or one is damaged; UnsupportedError for kinds of
   *   tokenizers that Q does not have; the signal's reason on abort.
   */
  async fromPretrained(idOrPath: string, options: TokenizerLoadOptions = {}): Promise<Tokenizer> {
    const op = 'AutoTokenizer.fromPretrained';
    assertKnownKeys(op, options, [...hubOptionNames, 'tokenizerLimits']);
    const limits = tokenizerLimitsWith(op, options.tokenizerLimits);
    const folder = await modelFolder(idOrPath, { ...options, files: 'tokenizer' });
    const tokenizer = await optionalTokenizer(folder, { signal: options.signal, limits });
    if (!tokenizer) throw missingFile(folder, 'tokenizer.json');
    return tokenizer;
  },
};

interface Files {
  readonly config: Json;
  readonly map: Json | undefined;
  readonly added: Json | undefined;
  readonly modelConfig: Json;
}

async function readFiles(
  folder: string,
  { configFileBytes, depth }: TokenizerLimits,
  signal?: AbortSignal,
): Promise<Files> {
  const read = async (name: string): Promise<Json | undefined> => {
    const json = await readTokenizerJson(folder, name, configFileBytes, signal);
    if (json) checkNesting(json, name, { depth, components: Infinity });
    return json;
  };
  const config = (await read('tokenizer_config.json')) ?? {};
  return {
    config: await withChatTemplates(folder, config, configFileBytes, signal),
    map: await read('special_tokens_map.json'),
    added: await read('added_tokens.json'),
    modelConfig: (await read('config.json')) ?? {},
  };
}

/** Ids of config.json for the names that neither the tokenizer's files nor its class mention. */
function configIdsOf(modelConfig: Json, mentioned: (name: string) => boolean): Record<string, number> {
  const ids: Record<string, number> = {};
  for (const name of ['bos_token', 'eos_token', 'pad_token']) {
    const value = modelConfig[`${name}_id`];
    const id: unknown = Array.isArray(value) ? value[0] : value;
    if (!mentioned(name) && Number.isSafeInteger(id) && (id as number) >= 0) ids[name] = id as number;
  }
  return ids;
}

/**
 * The tokenizer of a folder; undefined when it has none.
 * @param options.small see {@link parseTokenizer}
 */
export async function optionalTokenizer(folder: string, options: ParseOptions = {}): Promise<Tokenizer | undefined> {
  const { signal, limits = tokenizerLimits } = options;
  const files = await readFiles(folder, limits, signal);
  const name = tokenizerClassOf(files.config, files.modelConfig);
  const bytes = await readTokenizerFile(folder, 'tokenizer.json', limits.vocabularyFileBytes, signal);
  if (!bytes) return convertVocabulary(folder, name, files, { signal, limits });
  const pipeline = await parseTokenizer(bytes, 'tokenizer.json', options);
  const { defaults = {}, paddingSide } = classDefaults(name);
  const { padding } = pipeline.json;
  const own = isObject(padding) ? padding : {};
  const special = specialTokensOf({
    ...files,
    own: pipeline.added.tokens,
    defaults,
    padding: typeof own.pad_token === 'string' ? own.pad_token : undefined,
  });
  const warnings = movedIds(pipeline.json.added_tokens, pipeline.added.tokens);
  pipeline.add(special.toAdd(pipeline.added.tokens.values()));
  const mapCounts = files.config.added_tokens_decoder === undefined;
  const mentioned = (key: string) =>
    [files.config, defaults, ...(mapCounts && files.map ? [files.map] : [])].some((from) => Object.hasOwn(from, key));
  return new Tokenizer({}, files.config, {
    pipeline: pipeline.finish(),
    special,
    configIds: configIdsOf(files.modelConfig, mentioned),
    paddingSide: own.direction === 'Left' ? 'left' : own.direction === 'Right' ? 'right' : paddingSide,
    warnings,
  });
}

/**
 * The tokenizer for a model, which can be used without one: a damaged tokenizer.json is an error at once, other
 * vocabulary files that Q cannot read are a problem only when a text is to be encoded.
 * @param warnings gets what was found, a line each
 */
export async function tokenizerOfModel(
  folder: string | undefined,
  warnings: string[],
  options: ParseOptions = {},
): Promise<{ tokenizer?: Tokenizer; problem?: QError }> {
  if (folder === undefined) return {};
  try {
    const tokenizer = await optionalTokenizer(folder, options);
    for (const line of tokenizer?.warnings ?? []) warnings.push(line);
    return { tokenizer };
  } catch (error) {
    const names = await readdir(folder);
    if (!(error instanceof QError) || names.includes('tokenizer.json')) throw error;
    warnings.push(error.message);
    return { problem: error };
  }
}

/** Added tokens whose id in the file is not the one that the tokenizers library gives them. */
function movedIds(listed: unknown, tokens: ReadonlyMap<number, AddedToken>): string[] {
  if (!Array.isArray(listed)) return [];
  return (listed as { id: number; content: string }[])
    .filter(({ id, content }) => tokens.get(id)?.content !== content)
    .map(
      ({ id, content }) =>
        `tokenizer.json gives ${JSON.stringify(content)} the id ${id}, which is not the next free one; as in Python it has another`,
    );
}
