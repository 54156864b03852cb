// Which templates a tokenizer has, and which one is meant.
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { CheckpointError, ConfigError } from '@q/config';
import { MAX_TEMPLATES } from '../limits.js';
import { readTokenizerFile, readTokenizerJson } from '../tokenizer/read.js';

type Json = Readonly<Record<string, unknown>>;

const FOLDER = 'additional_chat_templates';

interface Reading {
  readonly folder: string;
  readonly maxBytes: number;
  readonly signal?: AbortSignal;
}

const readTemplate = async ({ folder, maxBytes, signal }: Reading, name: string): Promise<string | undefined> =>
  (await readTokenizerFile(folder, name, maxBytes, signal))?.toString('utf8');

/** The templates of `additional_chat_templates/*.jinja` by name. */
async function readAdditional(reading: Reading): Promise<[string, string][]> {
  const { folder } = reading;
  const directory = join(folder, FOLDER);
  // Absent in nearly all models, and a file of this name is no folder of templates.
  const isFolder = await stat(directory).then(
    (entry) => entry.isDirectory(),
    () => false,
  );
  if (!isFolder) return [];
  const names = (await readdir(directory)).filter((name) => name.endsWith('.jinja')).sort();
  if (names.length > MAX_TEMPLATES)
    throw new CheckpointError('tokenizer', `${FOLDER} has ${names.length} templates, more than ${MAX_TEMPLATES}`, {
      folder,
    });
  const texts = await Promise.all(names.map((name) => readTemplate(reading, join(FOLDER, name))));
  return names.map((name, i) => [name.slice(0, -'.jinja'.length), texts[i] ?? '']);
}

/** The template of a processor's own file, which older multimodal models have. */
const readLegacy = async ({ folder, maxBytes, signal }: Reading): Promise<unknown> =>
  (await readTokenizerJson(folder, 'chat_template.json', maxBytes, signal))?.chat_template;

/**
 * `tokenizer_config.json` with the chat templates of all files: those of their own win over it, as in Python; then its
 * own; then `chat_template.json`.
 * @param maxBytes of each file
 * @throws CheckpointError for files that cannot be read
 */
export async function withChatTemplates(
  folder: string,
  config: Json,
  maxBytes: number,
  signal?: AbortSignal,
): Promise<Json> {
  const reading = { folder, maxBytes, signal };
  const main = await readTemplate(reading, 'chat_template.jinja');
  const additional = await readAdditional(reading);
  const files = [...(main === undefined ? [] : [['default', main]]), ...additional];
  if (files.length === 1 && main !== undefined) return { ...config, chat_template: main };
  if (files.length > 0) return { ...config, chat_template: files.map(([name, template]) => ({ name, template })) };
  if ((config.chat_template ?? null) !== null) return config;
  const legacy = await readLegacy(reading);
  return legacy === undefined ? config : { ...config, chat_template: legacy };
}

/** Named templates; one without a name is `undefined`'s. */
type Templates = ReadonlyMap<string | undefined, string>;

const notTemplates = () =>
  new CheckpointError('tokenizer', 'chat_template is neither a template nor a list of named ones', {
    fix: 'correct it in tokenizer_config.json',
  });

/** `chat_template` of a tokenizer's config: a text, a list of named ones, or names with texts. */
function readTemplates(value: unknown): Templates {
  if ((value ?? null) === null) return new Map();
  if (typeof value === 'string') return new Map([[undefined, value]]);
  if (typeof value !== 'object') throw notTemplates();
  const entries = Array.isArray(value)
    ? (value as unknown[]).map((item) => {
        const { name, template } = (item ?? {}) as Json;
        return [name, template] as const;
      })
    : Object.entries(value!);
  if (entries.length > MAX_TEMPLATES || entries.some((entry) => entry.some((part) => typeof part !== 'string')))
    throw notTemplates();
  return new Map(entries as [string, string][]);
}

/**
 * The text of the template to render, as Python's `get_chat_template`.
 * @param value `chat_template` of the tokenizer
 * @param wanted a template's name, or its text
 * @throws ConfigError when there is none, or several and no default
 */
export function chooseTemplate(value: unknown, wanted: string | undefined, hasTools: boolean): string {
  const templates = readTemplates(value);
  if (wanted !== undefined) return templates.get(wanted) ?? textOf(wanted, templates);
  const only =
    templates.get(undefined) ?? (hasTools ? templates.get('tool_use') : undefined) ?? templates.get('default');
  if (only !== undefined) return only;
  if (templates.size === 0)
    throw new ConfigError('applyChatTemplate', 'this tokenizer has no chat template', {
      fix: 'pass chatTemplate, or write the prompt yourself',
    });
  throw new ConfigError('applyChatTemplate', 'this tokenizer has several chat templates and no default', {
    fix: `pass chatTemplate with a name: ${namesOf(templates)}`,
  });
}

const namesOf = (templates: Templates): string => [...templates.keys()].sort().join(', ');

/** A template's own text. Beside named templates, what looks like a name is one that the tokenizer lacks. */
function textOf(wanted: string, templates: Templates): string {
  const isNamed = templates.size > 0 && !templates.has(undefined);
  if (!isNamed || !/^[\w-]{1,64}$/.test(wanted)) return wanted;
  throw new ConfigError('applyChatTemplate', `there is no chat template "${wanted}"`, {
    why: `the tokenizer has ${namesOf(templates)}`,
    fix: 'give one of its names, or the text of a template',
  });
}
