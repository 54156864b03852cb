/** A template that is wrong, or that refuses its input. Named as Python's exceptions are in messages. */
export class TemplateError extends Error {}

/** `raise_exception(message)`: the template's own words. */
export class RaisedError extends TemplateError {}

/** The options that raise a limit, and what they count. */
export interface TemplateLimits {
  /** Characters of a template's text. Default 262,144. */
  readonly size: number;
  /** Steps of one rendering. Default 2,500,000, about a second. */
  readonly steps: number;
  /** Characters of the prompt and of each string made on the way. Default 16,777,216. */
  readonly length: number;
  /** Numbers of a range(). Default 100,000. */
  readonly range: number;
}

/** More work than {@link TemplateLimits} allow. `limit` is undefined when no option raises it. */
export class LimitError extends TemplateError {
  constructor(
    message: string,
    readonly limit?: keyof TemplateLimits,
  ) {
    super(message);
  }
}

/** Throws; usable where a value is expected. */
export function fail(message: string): never {
  throw new TemplateError(message);
}
