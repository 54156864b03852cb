// The one file of this package that reads the environment. The names are those of Python's huggingface_hub.
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileError } from '../safetensors/file.js';

export interface HubEnvironment {
  /**
   * Folder of the cache: HF_HUB_CACHE, else HUGGINGFACE_HUB_CACHE, else HF_HOME/hub, else
   * XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub.
   */
  readonly cacheDir: string;
  /** HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is 1, true, yes or on. */
  readonly offline: boolean;
  /** HF_ENDPOINT, without a slash at the end. Default https://huggingface.co. */
  readonly endpoint: string;
  /** Seconds to wait for an answer about a revision: HF_HUB_ETAG_TIMEOUT. Default 10. */
  readonly timeoutSeconds: number;
}

type Env = Readonly<Record<string, string | undefined>>;

const isOn = (value: string | undefined) => /^(1|true|yes|on)$/i.test(value ?? '');
const expand = (path: string) => resolve(path.replace(/^~(?=$|[\\/])/, homedir()));
const home = (env: Env) => expand(env.HF_HOME || join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'huggingface'));

/** What the environment says about the Hugging Face hub. */
export function hubEnvironment(env: Env = process.env): HubEnvironment {
  const timeout = Number(env.HF_HUB_ETAG_TIMEOUT);
  return {
    cacheDir: expand(env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(home(env), 'hub')),
    offline: isOn(env.HF_HUB_OFFLINE) || isOn(env.TRANSFORMERS_OFFLINE),
    endpoint: (env.HF_ENDPOINT || 'https://huggingface.co').replace(/\/+$/, ''),
    timeoutSeconds: timeout > 0 ? timeout : 10,
  };
}

/**
 * The access token: HF_TOKEN, else HUGGING_FACE_HUB_TOKEN, else the file HF_TOKEN_PATH (HF_HOME/token), unless
 * HF_HUB_DISABLE_IMPLICIT_TOKEN is on.
 */
export async function hubToken(env: Env = process.env): Promise<string | undefined> {
  if (isOn(env.HF_HUB_DISABLE_IMPLICIT_TOKEN)) return undefined;
  const given = (env.HF_TOKEN || env.HUGGING_FACE_HUB_TOKEN)?.trim();
  if (given) return given;
  const path = env.HF_TOKEN_PATH ? expand(env.HF_TOKEN_PATH) : join(home(env), 'token');
  try {
    return (await readFile(path, 'utf8')).trim() || undefined;
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw fileError(cause, path, 'cannot read the access token');
  }
}
