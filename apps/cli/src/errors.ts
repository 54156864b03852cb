import { QError } from '@q/transformers';
import { CommanderError } from 'commander';
import { visible } from './escape.js';
import { note, noteJson, noteText, paint } from './output.js';

export interface ReportOptions {
  /** Stacks too. */
  readonly verbose: boolean;
  /** One line of JSON, `{"error":{code,op,message,fields}}`. */
  readonly json: boolean;
}

/** What `--json` prints of an error. */
export interface ErrorReport {
  /** The code of a QError, `usage` for arguments that the command line does not take, else `internal`. */
  readonly code: string;
  /** What failed, as in the message. */
  readonly op: string;
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

/**
 * Prints an error to stderr: one clear message for what Q reports, the stack too with `--verbose` or for a fault of the
 * program.
 */
export function reportError(error: unknown, { verbose, json }: ReportOptions): void {
  if (json) return noteJson({ error: { ...errorReport(error), ...(verbose && { stack: stackOf(error) }) } });
  // Commander has printed its own already.
  if (error instanceof CommanderError) return;
  if (error instanceof QError && !verbose) return note(paint.red(`${error.name}:`), ` ${error.message}`);
  for (const line of stackOf(error)) noteText(line);
}

/** An error as data. */
export function errorReport(error: unknown): ErrorReport {
  if (error instanceof QError) {
    const { code, op, message, fields } = error;
    return { code, op, message, fields: plain(fields) };
  }
  if (error instanceof CommanderError)
    return { code: 'usage', op: 'q', message: usageMessage(error), fields: { rule: error.code } };
  const { name, message, code } = (error instanceof Error ? error : new Error(String(error))) as NodeJS.ErrnoException;
  return { code: 'internal', op: 'q', message, fields: { name, ...(code !== undefined && { code }) } };
}

function usageMessage({ code, message }: CommanderError): string {
  return code === 'commander.help' ? 'no command is given' : message.replace(/^error: /, '').trim();
}

/** Fields as JSON can hold them: what it cannot is written as text. */
function plain(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const value = (item: unknown): unknown => {
    try {
      return JSON.parse(JSON.stringify(item, (_, part: unknown) => (typeof part === 'bigint' ? String(part) : part)));
    } catch {
      return String(item); // a cycle, or something without a JSON form
    }
  };
  return Object.fromEntries(Object.entries(fields).map(([key, item]) => [key, value(item)]));
}

/** An error and its causes, each with its stack; the messages, which quote files, are on one line. */
function stackOf(error: unknown): string[] {
  const lines: string[] = [];
  for (let at: unknown = error; at !== undefined && lines.length < 10; at = (at as { cause?: unknown }).cause) {
    const title = at instanceof Error ? `${at.name}: ${at.message}` : String(at);
    const stack = at instanceof Error && at.stack?.startsWith(title) ? at.stack.slice(title.length) : '';
    lines.push(`${lines.length > 0 ? 'caused by ' : ''}${visible(title)}${stack}`);
    if (typeof at !== 'object' || at === null) break;
  }
  return lines;
}
