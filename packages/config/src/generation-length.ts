import { ConfigError } from './errors.js';
import type { OptionSource } from './fields.js';

/** New tokens when nobody says how many, as in Python. */
export const DEFAULT_NEW_TOKENS = 20;

/**
 * How long a call may become, and who said so. At most one of the two lengths is set, and neither when nobody said
 * anything. Lengths are in tokens; `maxLength` counts the prompt.
 */
export interface LengthLimit {
  readonly maxNewTokens: number | null;
  readonly maxLength: number | null;
  readonly source: OptionSource;
}

/**
 * New tokens for a prompt. What the caller asked for must fit; a length from the model's own file, which the caller
 * could not have known, is cut to what fits, and stands for nothing where the prompt is longer than it; without any
 * length it is `DEFAULT_NEW_TOKENS`, cut too.
 * @param prompt tokens of the prompt
 * @param context tokens that the model reaches, from `maxContext`
 * @throws ConfigError for a caller's length that does not fit, and for a prompt that leaves no room
 */
export function newTokensFor(limit: LengthLimit, prompt: number, context: number): number {
  const room = context - prompt;
  const tooLong = (what: string, fix: string): ConfigError =>
    new ConfigError('generate', `the prompt has ${prompt} tokens${what}`, {
      why: `the model reaches ${context} tokens`,
      fix,
    });
  if (room < 1) throw tooLong('', 'shorten the prompt');
  const { maxNewTokens, maxLength, source } = limit;
  const wanted = maxNewTokens ?? (maxLength === null ? DEFAULT_NEW_TOKENS : maxLength - prompt);
  if (source !== 'caller') return Math.min(wanted > 0 ? wanted : DEFAULT_NEW_TOKENS, room);
  if (wanted < 1)
    throw new ConfigError('generate', `the prompt has ${prompt} tokens and maxLength is ${maxLength}`, {
      fix: 'set maxNewTokens, or a larger maxLength',
    });
  if (wanted <= room) return wanted;
  const option = maxNewTokens === null ? `maxLength is ${maxLength}` : `maxNewTokens is ${maxNewTokens}`;
  throw tooLong(` and ${option}`, `set maxNewTokens to ${room} or less, or shorten the prompt`);
}
