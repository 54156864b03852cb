// The one way out: every request to a hub goes through here, those of @huggingface/hub too.
import { QError } from '@q/config';
import { HubFailure, networkFailure } from './failure.js';
import type { HubLimits } from '../limits.js';
import type { Patience } from './patience.js';
import { Watch } from './watch.js';

export interface HubClientOptions {
  readonly endpoint: string;
  /** Sent to the endpoint's own origin and nowhere else. */
  readonly token: string | undefined;
  readonly fetch: typeof fetch;
  readonly limits: HubLimits;
  readonly signal?: AbortSignal;
}

const isRedirect = (status: number) => [301, 302, 303, 307, 308].includes(status);

/** A connection to one hub for one call of the caller. */
export class HubClient {
  readonly #origin: string;

  constructor(readonly options: HubClientOptions) {
    this.#origin = new URL(options.endpoint).origin;
  }

  /**
   * A `fetch` for metadata: follows redirects, retries, and gives only whole answers of status 200. All its answers
   * together may be as long, and as many, as the limits say.
   */
  metadataFetch(patience: Patience): typeof fetch {
    const { limits } = this.options;
    let [bytesLeft, answersLeft] = [limits.maxMetadataBytes, limits.maxPages];
    const get = async (url: string): Promise<Response> => {
      if (--answersLeft < 0) throw new HubFailure('answer', `the list has more than ${limits.maxPages} pages`);
      for (;;) {
        try {
          const { body, response } = await this.#whole(url, bytesLeft);
          bytesLeft -= body.length;
          return new Response(body, { headers: response.headers });
        } catch (error) {
          await patience.after(error);
        }
      }
    };
    return (input) => get(input instanceof Request ? input.url : String(input));
  }

  /** The headers of an answer to a request for a file; its body is still to come. Accepts status 200, 206 and 416. */
  async open(url: string, headers: Record<string, string>, watch: Watch): Promise<Response> {
    const { response, elsewhere } = await this.#follow(url, headers, watch);
    if (![200, 206, 416].includes(response.status)) throw await this.#refused(response, watch, elsewhere);
    return response;
  }

  async #whole(url: string, limit: number): Promise<{ body: Uint8Array<ArrayBuffer>; response: Response }> {
    const { metadataTimeoutMs: idleMs, minProgressBytes: minBytes, metadataTotalMs: totalMs } = this.options.limits;
    using watch = new Watch({ idleMs, minBytes, totalMs }, this.options.signal);
    const { response, elsewhere } = await this.#follow(url, { accept: 'application/json' }, watch);
    if (response.status !== 200) throw await this.#refused(response, watch, elsewhere);
    const { bytes: body, more } = await readUpTo(response, limit, watch);
    if (more) throw new HubFailure('answer', `the answer is longer than ${limit} bytes`);
    return { body, response };
  }

  /**
   * Follows redirects by hand: `fetch` alone would carry other headers along, and from https to http too. Once a
   * redirect has left the endpoint's origin the token stays at home.
   */
  async #follow(
    start: string,
    headers: Record<string, string>,
    watch: Watch,
  ): Promise<{ response: Response; elsewhere: string | undefined }> {
    const { fetch, token, limits } = this.options;
    let url = new URL(start);
    let atHome = true;
    for (let hop = 0; hop <= limits.maxRedirects; hop++) {
      atHome &&= url.origin === this.#origin;
      const sent = atHome && token !== undefined ? { ...headers, authorization: `Bearer ${token}` } : headers;
      const response = await request(fetch, url, sent, watch);
      const elsewhere = url.origin === this.#origin ? undefined : url.host;
      if (!isRedirect(response.status)) return { response, elsewhere };
      discard(response);
      url = nextUrl(response, url);
      watch.touch();
    }
    throw new HubFailure('answer', `more than ${limits.maxRedirects} redirects`);
  }

  /** What an answer that is no success means. */
  async #refused(response: Response, watch: Watch, elsewhere: string | undefined): Promise<HubFailure> {
    const { status, headers } = response;
    if (status < 400) {
      discard(response);
      return new HubFailure('answer', `the hub answers with status ${status}, which says nothing here`);
    }
    // A signed address of storage may have run out; the hub gives a new one.
    const ranOut = elsewhere !== undefined && status === 403;
    const transient = ranOut || [408, 429, 500, 502, 503, 504].includes(status);
    return new HubFailure('status', await errorText(response, this.options.limits.maxErrorBytes, watch), {
      status,
      transient,
      elsewhere,
      code: headers.get('x-error-code'),
      retryAfterMs: transient ? retryAfter(headers.get('retry-after')) : undefined,
    });
  }
}

async function request(send: typeof fetch, url: URL, headers: Record<string, string>, watch: Watch): Promise<Response> {
  try {
    return await watch.race(send(url.href, { headers, redirect: 'manual', signal: watch.signal }));
  } catch (error) {
    // Not the network: the caller's abort, or an error of this project from a proxy's or the caller's fetch.
    if ((watch.signal.aborted && error === watch.signal.reason) || error instanceof QError) throw error;
    throw networkFailure(error, 'request');
  }
}

/** Where a redirect leads. Plain http behind https would show, and let others change, what was asked for in private. */
function nextUrl(response: Response, from: URL): URL {
  const location = response.headers.get('location');
  const url = location !== null && URL.canParse(location, from.href) ? new URL(location, from) : undefined;
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.password)
    throw new HubFailure('answer', 'a redirect leads to no address');
  if (from.protocol === 'https:' && url.protocol === 'http:')
    throw new HubFailure('answer', `a redirect leads from https to http (${url.host})`);
  return url;
}

/** The pieces of a body, as they come. @throws HubFailure when they stop coming. */
export async function* bodyOf(response: Response, watch: Watch): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader() as ReadableStreamDefaultReader<Uint8Array> | undefined;
  if (!reader) return;
  try {
    for (;;) {
      const { done, value } = await watch.race(reader.read());
      if (done) return;
      watch.count(value.length);
      yield value;
    }
  } catch (error) {
    if (watch.signal.aborted && error === watch.signal.reason) throw error;
    throw networkFailure(error, 'body');
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

async function readUpTo(
  response: Response,
  limit: number,
  watch: Watch,
): Promise<{ bytes: Uint8Array<ArrayBuffer>; more: boolean }> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of bodyOf(response, watch)) {
    parts.push(part.subarray(0, limit - length));
    length += part.length;
    if (length > limit) return { bytes: new Uint8Array(Buffer.concat(parts)), more: true };
  }
  return { bytes: new Uint8Array(Buffer.concat(parts)), more: false };
}

/** What the hub says about an error; a body that does not come changes nothing about the status. */
async function errorText(response: Response, limit: number, watch: Watch): Promise<string> {
  const header = response.headers.get('x-error-message');
  const fallback = `status ${response.status}${header ? `: ${header}` : ''}`;
  try {
    const { bytes } = await readUpTo(response, limit, watch);
    const text = new TextDecoder().decode(bytes).trim();
    if (!response.headers.get('content-type')?.includes('json')) return fallback;
    const { error, message } = JSON.parse(text) as { error?: unknown; message?: unknown };
    const said = [error, message].find((value) => typeof value === 'string' && value !== '');
    return said === undefined ? fallback : String(said);
  } catch (error) {
    if (!(error instanceof HubFailure || error instanceof SyntaxError || error instanceof TypeError)) throw error;
    return fallback;
  }
}

/** Milliseconds of a Retry-After header: seconds, or a date. */
export function retryAfter(header: string | null, now = Date.now()): number | undefined {
  if (header === null) return undefined;
  if (/^\s*\d+(\.\d+)?\s*$/.test(header)) return Number(header) * 1000;
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

function discard(response: Response): void {
  response.body?.cancel().catch(() => undefined);
}
