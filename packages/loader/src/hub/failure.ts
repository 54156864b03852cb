/**
 * What went wrong between this package and a hub. `unreachable`: no answer, or one that broke off; `status`: it
 * answered with an error; `answer`: with something that no hub sends.
 */
export type FailureKind = 'unreachable' | 'status' | 'answer';

/** Never leaves this folder: `hubError` turns it into an error for the caller. */
export class HubFailure extends Error {
  readonly status?: number;
  /** What the answer asked to wait. */
  readonly retryAfterMs?: number;
  /** Whether the same request may well succeed soon. */
  readonly transient: boolean;
  /** The hub's word for it, such as `RepoNotFound`. */
  readonly code?: string;
  /** The host that answered, where it was not the hub's own but one that it named. */
  readonly elsewhere?: string;

  constructor(
    readonly kind: FailureKind,
    message: string,
    more: {
      status?: number;
      retryAfterMs?: number;
      transient?: boolean;
      code?: string | null;
      elsewhere?: string;
    } = {},
  ) {
    super(message);
    this.name = 'HubFailure';
    this.status = more.status;
    this.retryAfterMs = more.retryAfterMs;
    this.transient = more.transient ?? false;
    this.code = more.code ?? undefined;
    this.elsewhere = more.elsewhere;
  }
}

/**
 * Whether what is wholly in the cache may stand in: the hub is away, or does not say what it has. As in Python a
 * repository that is not there any more does no harm to what was downloaded, a revision that does not exist is an
 * error.
 */
export const mayUseCache = (cause: unknown): boolean =>
  cause instanceof HubFailure &&
  (cause.kind !== 'status' || cause.code === 'RepoNotFound' || standInStatus(cause.status ?? 0));

const standInStatus = (status: number) => [401, 403, 407, 408, 429].includes(status) || status >= 500;

// DNS that is overloaded, connections that broke: worth another try. A refused connection or an unknown host is not.
const transientCodes = new Set([
  'ECONNRESET',
  'ECONNABORTED',
  'EPIPE',
  'ETIMEDOUT',
  'EAI_AGAIN',
  'UND_ERR_SOCKET',
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_HEADERS_TIMEOUT',
  'UND_ERR_BODY_TIMEOUT',
  'UND_ERR_RES_CONTENT_LENGTH_MISMATCH',
]);

/** An error of `fetch`, whose reason often stands in its cause. */
export function networkFailure(error: unknown, during: 'request' | 'body'): HubFailure {
  if (error instanceof HubFailure) return error;
  const messages: string[] = [];
  let transient = during === 'body';
  for (let at = error, depth = 0; at instanceof Error && depth < 5; at = at.cause, depth++) {
    messages.push(at.message || String((at as NodeJS.ErrnoException).code ?? at.name));
    transient ||= transientCodes.has(String((at as NodeJS.ErrnoException).code));
  }
  return new HubFailure('unreachable', messages.join(': ') || String(error), { transient });
}
