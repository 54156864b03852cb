import { CheckpointError } from '@q/config';
import { scanJson } from './safetensors/json-text.js';
import { readSmallFile, utf8Text, type SmallFileOptions } from './small-file.js';

/**
 * Reads a small file as UTF-8 text.
 * @throws CheckpointError naming the file when it cannot be read, is too long or is not UTF-8.
 */
export const readText = async (path: string, options: SmallFileOptions = {}): Promise<string> =>
  utf8Text(await readSmallFile(path, options), path);

/**
 * The object that a JSON text holds; a key that occurs twice, and nesting of more than 100 levels, are errors.
 * @param file its name, for errors
 * @throws CheckpointError
 */
export function parseJsonObject(text: string, file: string): Record<string, unknown> {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new CheckpointError('checkpoint', 'the file is not valid JSON', {
      file,
      why: (cause as Error).message.slice(0, 200),
      cause,
    });
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw new CheckpointError('checkpoint', 'the file does not hold a JSON object', { file });
  const { duplicate, tooDeep } = scanJson(text);
  if (duplicate !== undefined)
    throw new CheckpointError('checkpoint', 'a JSON object has a key twice', { file, key: duplicate.slice(0, 200) });
  if (tooDeep) throw new CheckpointError('checkpoint', 'the JSON is nested too deeply', { file, why: tooDeep });
  return json as Record<string, unknown>;
}

/**
 * Reads a JSON file that holds an object; a key that occurs twice is an error.
 * @throws CheckpointError naming the file.
 */
export const readJsonObject = async (path: string, options: SmallFileOptions = {}): Promise<Record<string, unknown>> =>
  parseJsonObject(await readText(path, options), path);
