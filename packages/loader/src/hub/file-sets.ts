// Which files of a repository a caller needs, by name.
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { isNoWeights } from '../foreign.js';
import { readShardIndex } from '../shard-index.js';

/**
 * What of a repository is needed: `model` all that a model is loaded from, `settings` the same without weights,
 * `tokenizer` and `config` these alone.
 */
export type ModelFiles = 'model' | 'settings' | 'tokenizer' | 'config';
export const modelFileSets: readonly ModelFiles[] = ['model', 'settings', 'tokenizer', 'config'];

/** The files in which a tokenizer may be stored; one of these lines is a whole one. */
const tokenizerForms: readonly (readonly string[])[] = [
  ['tokenizer.json'],
  ['tokenizer.model'],
  ['spiece.model'],
  ['sentencepiece.bpe.model'],
  ['vocab.json', 'merges.txt'],
  ['vocab.txt'],
];

/** What belongs to them. */
const tokenizerCompanions = [
  'config.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'chat_template.jinja',
  'chat_template.json',
];

/** The folder of named chat templates. */
export const templateFolder = 'additional_chat_templates';
const isTemplate = (path: string) => /^additional_chat_templates\/[^/]+\.jinja$/.test(path);

const settings = /\.(json|jinja|model|txt|tiktoken)$/;
const notNeeded = /^(README|LICENSE|USE_POLICY|NOTICE)/i;

/** JSON, tokenizer and template files at the top of the repository, without the index of any weight format. */
const isSetting = (path: string) =>
  isTemplate(path) ||
  (!path.includes('/') && settings.test(path) && !notNeeded.test(path) && !/\.[\w-]+\.index\.json$/.test(path));

/** Whether a file that is not weights belongs to a set. */
export function isSmallFileOf(set: ModelFiles, path: string): boolean {
  if (set === 'config') return path === 'config.json';
  if (set === 'tokenizer')
    return tokenizerForms.flat().includes(path) || tokenizerCompanions.includes(path) || isTemplate(path);
  return isSetting(path);
}

/** Whether these names hold a tokenizer in some form. */
export const hasTokenizer = (names: { has(name: string): boolean }): boolean =>
  tokenizerForms.some((form) => form.every((name) => names.has(name)));

/** Tokenizers last: a snapshot that has one (and its weights, which come later still) has what belongs to it. */
export const inFetchOrder = <T extends { path: string }>(files: readonly T[]): T[] => {
  const late = tokenizerForms.flat();
  return [...files].sort((a, b) => Number(late.includes(a.path)) - Number(late.includes(b.path)));
};

/** What a folder lacks of a set. */
export interface Missing {
  /** Without these nothing can be loaded. */
  readonly required: readonly string[];
  /** A model may have no tokenizer, so only the hub can say whether this is missing. */
  readonly perhaps: readonly string[];
}

const isFile = (path: string) =>
  stat(path).then(
    (s) => s.isFile(),
    () => false,
  );

/** Files that a snapshot needs for `set` but does not have; a broken link counts as missing. */
export async function missingOf(folder: string, set: ModelFiles): Promise<Missing> {
  const names = await readdir(folder).catch(() => [] as string[]);
  const present = new Set<string>();
  const required: string[] = [];
  for (const name of names) {
    if (await isFile(join(folder, name))) present.add(name);
    else if (isSmallFileOf(set, name) && !(await isFolder(join(folder, name)))) required.push(name);
  }
  const need = (name: string) => {
    if (!present.has(name) && !required.includes(name)) required.push(name);
  };
  const tokenizer = hasTokenizer(present) ? [] : ['tokenizer.json'];
  if (set === 'tokenizer') tokenizer.forEach(need);
  else need(names.includes('adapter_config.json') && set !== 'config' ? 'adapter_config.json' : 'config.json');
  if (set === 'model') for (const name of await missingWeights(folder, names)) need(name);
  const perhaps = set === 'model' || set === 'settings' ? tokenizer.filter((name) => !required.includes(name)) : [];
  return { required, perhaps };
}

const isFolder = (path: string) =>
  stat(path).then(
    (s) => s.isDirectory(),
    () => false,
  );

/** The forms of weights in order of preference, with PyTorch's own name of the file that others call `model`. */
export const weightForms = [
  { suffix: '.safetensors', names: ['model', 'adapter_model'] },
  { suffix: '.bin', names: ['pytorch_model', 'adapter_model'] },
] as const;

/** Whether a file at the top of a repository holds weights of a form. */
export const isWeightsOf = (suffix: string, path: string): boolean =>
  path.endsWith(suffix) && !path.includes('/') && !isNoWeights(path);

/** Weight files that a snapshot lacks. */
async function missingWeights(folder: string, names: readonly string[]): Promise<string[]> {
  for (const form of weightForms) {
    const whole = names.filter((name) => isWeightsOf(form.suffix, name));
    const indexes = names.filter((name) => name.endsWith(`${form.suffix}.index.json`));
    if (whole.length > 0 || indexes.length > 0) return missingOfForm(folder, form, whole, indexes);
  }
  return ['model.safetensors'];
}

/** Files of one form that a snapshot lacks: broken links, an index without its shards, shards without their index. */
async function missingOfForm(
  folder: string,
  { suffix, names: [name] }: (typeof weightForms)[number],
  whole: readonly string[],
  indexes: readonly string[],
): Promise<string[]> {
  const missing: string[] = [];
  for (const file of whole) if (!(await isFile(join(folder, file)))) missing.push(file);
  if (whole.includes(`${name}${suffix}`)) return missing;
  for (const file of whole) {
    const base = /^(.+)-\d{5}-of-\d{5}$/.exec(file.slice(0, -suffix.length))?.[1];
    const index = `${base}${suffix}.index.json`;
    if (base !== undefined && !indexes.includes(index) && !missing.includes(index)) missing.push(index);
  }
  for (const file of indexes) {
    if (!(await isFile(join(folder, file)))) {
      missing.push(file);
      continue;
    }
    const { shards } = await readShardIndex(join(folder, file));
    for (const shard of shards)
      if (!missing.includes(shard) && !(await isFile(join(folder, shard)))) missing.push(shard);
  }
  return missing;
}
