// Where the weights of a folder are, or what is there instead.
import { lstat, readdir, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { CheckpointError, UnsupportedError } from '@q/config';
import { foreignFiles, isNoWeights } from './foreign.js';
import { checkNoSaveIsOpen } from './write/staging.js';
import { fileError } from './small-file.js';

const op = 'checkpoint';

/** What lies at a path. @throws CheckpointError naming the path when the system does not tell. */
async function kindAt(path: string): Promise<'file' | 'folder' | 'other' | undefined> {
  try {
    const status = await stat(path);
    return status.isFile() ? 'file' : status.isDirectory() ? 'folder' : 'other';
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code !== 'ENOENT') throw fileError(cause, path, 'cannot read a file');
    const link = await lstat(path).catch(() => undefined);
    if (!link) return undefined;
    throw new CheckpointError(op, 'a symbolic link leads nowhere', {
      file: path,
      fix: 'the file it names is gone: fetch the checkpoint again',
    });
  }
}

/** What to say about a folder that has none of the wanted files. */
async function nothingFound(folder: string, wanted: readonly string[]): Promise<Error> {
  let names: string[];
  try {
    names = await readdir(folder);
  } catch (cause) {
    return fileError(cause, folder, 'cannot read the folder of the checkpoint') as Error;
  }
  const others = names.filter((name) => /\.(safetensors|bin)(\.index\.json)?$/.test(name) && !isNoWeights(name));
  const foreign = foreignFiles(names);
  if (foreign && others.every((name) => foreign.found.includes(name))) {
    return new UnsupportedError(op, `in this folder there is only ${foreign.what}`, {
      folder,
      found: foreign.found.slice(0, 10),
      why: 'Q reads model.safetensors and pytorch_model.bin, or their index with shards',
      fix: foreign.fix,
    });
  }
  return new CheckpointError(op, 'the folder has no checkpoint', {
    folder,
    lookedFor: wanted,
    found: others.slice(0, 10),
    fix: others.length > 0 ? 'give its name as baseName or variant, or open the file itself' : 'check the path',
  });
}

export type Location =
  | { readonly folder: string; readonly single: string; readonly index?: undefined }
  | { readonly folder: string; readonly single?: undefined; readonly index: string };

interface WeightNames {
  baseName?: string;
  variant?: string;
}

/** PyTorch's own name of a file that is called otherwise as safetensors. */
const pickledName = (baseName: string): string => (baseName === 'model' ? 'pytorch_model' : baseName);

/** What weights of this name may be called in a folder, safetensors first: a single file, or an index. */
function candidates(folder: string, { baseName = 'model', variant }: WeightNames): Location[] {
  const dot = variant ? `.${variant}` : '';
  const pickled = pickledName(baseName);
  return [
    { folder, single: join(folder, `${baseName}${dot}.safetensors`) },
    { folder, index: join(folder, `${baseName}.safetensors.index${dot}.json`) },
    { folder, single: join(folder, `${pickled}${dot}.bin`) },
    { folder, index: join(folder, `${pickled}.bin.index${dot}.json`) },
  ];
}

const pathOf = ({ single, index }: Location): string => single ?? index;

/**
 * Whether a folder has weights that `openCheckpoint` would open. They may still be damaged or incomplete.
 * @throws CheckpointError naming the path when the system does not tell
 */
export async function hasCheckpoint(folder: string, options: WeightNames = {}): Promise<boolean> {
  for (const candidate of candidates(folder, options)) if ((await kindAt(pathOf(candidate))) !== undefined) return true;
  return false;
}

/**
 * The file or index to open: by explicit path, or in a folder the single file before the index and safetensors before
 * PyTorch's own, as transformers does.
 * @throws as openCheckpoint
 */
export async function locate(path: string, options: WeightNames): Promise<Location> {
  const kind = await kindAt(path);
  if (kind === 'file' && path.endsWith('.index.json')) return { folder: dirname(path), index: path };
  if (kind === 'file' || kind === 'other') return { folder: dirname(path), single: path };
  if (kind === 'folder') await checkNoSaveIsOpen(path);
  const possible = candidates(path, options);
  for (const candidate of possible) if ((await kindAt(pathOf(candidate))) !== undefined) return candidate;
  throw await nothingFound(
    path,
    possible.map((candidate) => basename(pathOf(candidate))),
  );
}
