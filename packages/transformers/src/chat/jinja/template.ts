import { Budget } from './budget.js';
import { LimitError, type TemplateLimits } from './errors.js';
import { toValue } from './from-js.js';
import { makeGlobals } from './globals.js';
import type { Block } from './nodes.js';
import { parse } from './parse.js';
import { Renderer } from './render.js';
import { Scope } from './scope.js';

/** The engine's own limit of depth, should a caller's stack be nearly full already. */
function withStack<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (error instanceof RangeError && /call stack/i.test(error.message))
      throw new LimitError('the chat template nests deeper than the stack');
    throw error;
  }
}

/**
 * A chat template: Jinja as transformers sets it up (a sandbox in which nothing can be changed, trim_blocks,
 * lstrip_blocks, loop controls, `{% generation %}`), equal to jinja2 3.1 in what it renders.
 */
export class Template {
  readonly #block: Block;

  /** @throws TemplateError for wrong syntax, LimitError for a text that is too long or nests too deep */
  constructor(
    readonly source: string,
    { size }: Pick<TemplateLimits, 'size'>,
  ) {
    if (source.length > size)
      throw new LimitError(`the chat template has ${source.length} characters, more than ${size}`, 'size');
    this.#block = withStack(() => parse(source));
  }

  /**
   * @param variables those of undefined value are left out
   * @throws TemplateError when it fails or refuses, LimitError when it does too much
   */
  render(variables: Readonly<Record<string, unknown>>, limits: TemplateLimits, now = () => new Date()): string {
    return withStack(() => {
      const budget = new Budget(limits);
      const scope = new Scope();
      for (const [name, value] of makeGlobals(budget, now)) scope.set(name, value);
      for (const [name, value] of Object.entries(variables))
        if (value !== undefined) scope.set(name, toValue(value, name));
      return new Renderer(budget).block(this.#block, scope);
    });
  }
}
