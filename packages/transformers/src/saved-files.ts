// The files beside the weights that belong to a model: saving copies them as they are.
import { readdir } from 'node:fs/promises';
import { CheckpointError } from '@q/config';
import { readBytes } from './files.js';

/** Files of tokenizers, in all the forms in which Python's classes read and write them. */
const tokenizerFile = new RegExp(
  [
    '(tokenizer|tokenizer_config|special_tokens_map|added_tokens|chat_template|tekken)\\.json',
    'chat_template\\.jinja',
    '(vocab|encoder|dict|merges|entity_vocab|normalizer|emoji|bpe)([-_.][\\w-]+)*\\.(json|txt|bpe|codes|model|spm)',
    'vocab\\.[\\w-]+',
    'tokenizer\\.model(\\.v\\w+)?',
    '[\\w.-]+\\.(model|spm|tiktoken)',
  ]
    .map((pattern) => `^${pattern}$`)
    .join('|'),
);

/** Settings of what makes inputs of images, sound and video. */
const processorFile = /^((\w+_)?preprocessor_config|processor_config|image_processor|feature_extractor)\.json$/;

/** Folder of named chat templates. */
const templates = 'additional_chat_templates';

/** Whether a file, or the folder of named chat templates, is a tokenizer's or a processor's. */
export const isTokenizerFile = (name: string): boolean =>
  !name.startsWith('.') && (name === templates || tokenizerFile.test(name) || processorFile.test(name));

/** A folder that is not there has no files; one that cannot be read is an error. */
const noFolder =
  (folder: string) =>
  (cause: NodeJS.ErrnoException): string[] => {
    if (cause.code === 'ENOENT' || cause.code === 'ENOTDIR') return [];
    throw new CheckpointError('save', 'cannot list the files of the source', { folder, why: cause.message, cause });
  };

/**
 * The tokenizer's and processor's files of a folder, byte for byte, by name.
 * @throws CheckpointError for one that cannot be read
 */
export async function tokenizerFiles(folder: string, signal?: AbortSignal): Promise<Map<string, Uint8Array>> {
  const list = async (below: string) => (await readdir(below).catch(noFolder(below))).sort();
  const names = [
    ...(await list(folder)).filter((name) => name !== templates && isTokenizerFile(name)),
    ...(await list(`${folder}/${templates}`))
      .filter((name) => /^[^.].*\.jinja$/.test(name))
      .map((name) => `${templates}/${name}`),
  ];
  const files = new Map<string, Uint8Array>();
  for (const name of names) {
    const bytes = await readBytes(folder, name, { signal });
    if (bytes) files.set(name, bytes);
  }
  return files;
}
