// The one file of this package that reads the environment. The names are those of Python's huggingface_hub.
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileError } from '../safetensors/file.js';
import { hubLimits } from '../limits.js';

export interface HubEnvironment {
  /**
   * Folder of the cache: HF_HUB_CACHE, else HUGGINGFACE_HUB_CACHE, else HF_HOME/hub, else
   * XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub.
   */
  readonly cacheDir: string;
  /** HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is 1, true, yes or on. */
  readonly offline: boolean;
  /** Which of them. */
  readonly offlineBy: string | undefined;
  /** HF_ENDPOINT, without a slash at the end. Default https://huggingface.co. */
  readonly endpoint: string;
  /** Milliseconds to wait for an answer about a revision: HF_HUB_ETAG_TIMEOUT (in seconds). Default 10 s. */
  readonly metadataTimeoutMs: number;
  /** Milliseconds in which a download must go on: HF_HUB_DOWNLOAD_TIMEOUT (in seconds). Default 10 s. */
  readonly downloadTimeoutMs: number;
  readonly proxies: ProxySettings;
}

/** HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in small letters first. */
export interface ProxySettings {
  /** For http: and for https: addresses; undefined where there is none. */
  readonly http: string | undefined;
  readonly https: string | undefined;
  /** Hosts that are asked directly, as written. */
  readonly except: string;
}

type Env = Readonly<Record<string, string | undefined>>;

const isOn = (value: string | undefined) => /^(1|true|yes|on)$/i.test(value ?? '');

/** `~`, then `$NAME` and `${NAME}` (what is not set stays as written), as Python's expanduser and expandvars. */
function expand(path: string, env: Env): string {
  const atHome = path.replace(/^~(?=$|[\\/])/, () => homedir());
  const named = atHome.replace(/\$(?:(\w+)|\{([^}]*)\})/g, (text, plain?: string, braced?: string) => {
    return env[plain ?? braced ?? ''] ?? text;
  });
  return resolve(
    process.platform === 'win32' ? named.replace(/%(\w+)%/g, (text, name: string) => env[name] ?? text) : named,
  );
}

const home = (env: Env) =>
  expand(env.HF_HOME || join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'huggingface'), env);

const milliseconds = (seconds: string | undefined, otherwise: number) =>
  Number(seconds) > 0 ? Math.ceil(Number(seconds) * 1000) : otherwise;

/** What the environment says about the Hugging Face hub. */
export function hubEnvironment(env: Env = process.env): HubEnvironment {
  const proxy = (name: string) => env[`${name}_proxy`] || env[`${name.toUpperCase()}_PROXY`] || undefined;
  const offlineBy = ['HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE'].find((name) => isOn(env[name]));
  return {
    cacheDir: expand(env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(home(env), 'hub'), env),
    offline: offlineBy !== undefined,
    offlineBy,
    endpoint: (env.HF_ENDPOINT || 'https://huggingface.co').replace(/\/+$/, ''),
    metadataTimeoutMs: milliseconds(env.HF_HUB_ETAG_TIMEOUT, hubLimits.metadataTimeoutMs),
    downloadTimeoutMs: milliseconds(env.HF_HUB_DOWNLOAD_TIMEOUT, hubLimits.downloadTimeoutMs),
    proxies: {
      http: proxy('http') ?? proxy('all'),
      https: proxy('https') ?? proxy('all'),
      except: proxy('no') ?? '',
    },
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
  const path = env.HF_TOKEN_PATH ? expand(env.HF_TOKEN_PATH, env) : join(home(env), 'token');
  try {
    return (await readFile(path, 'utf8')).trim() || undefined;
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw fileError(cause, path, 'cannot read the access token');
  }
}
