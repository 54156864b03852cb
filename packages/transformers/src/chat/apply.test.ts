import { readFileSync } from 'node:fs';
import { ConfigError } from '@q/config';
import { describe, expect, it } from 'vitest';
import { ChatTemplates } from './apply.js';
import type { ChatMessage, ChatTemplateOptions } from './options.js';

const fixture = (name: string) => readFileSync(new URL(`../../fixtures/chat/${name}`, import.meta.url), 'utf8');

interface Case {
  template: string;
  conversation: string;
  options: number;
  expected: string | { error: string };
}

// Made by fixtures/chat/make.py with transformers 5.17.0.
const { specialTokens, conversations, options, cases } = JSON.parse(fixture('templates.json')) as {
  specialTokens: Record<string, string>;
  conversations: Record<string, ChatMessage[]>;
  options: Record<string, unknown>[];
  cases: Case[];
};

/** Python's arguments as ours. */
function toOptions(python: Record<string, unknown>): ChatTemplateOptions {
  const { add_generation_prompt, continue_final_message, tools, documents, ...variables } = python as {
    add_generation_prompt?: boolean;
    continue_final_message?: boolean;
    tools?: Record<string, unknown>[];
    documents?: Record<string, unknown>[];
  };
  return {
    addGenerationPrompt: add_generation_prompt,
    continueFinalMessage: continue_final_message,
    tools,
    documents,
    variables,
  };
}

describe.each([...new Set(cases.map(({ template }) => template))])('%s', (name) => {
  const chatTemplate = fixture(`templates/${name}`);
  const templates = new ChatTemplates();
  const render = ({ conversation, options: at }: Case): string =>
    templates.render(
      'applyChatTemplate',
      { chatTemplate, specialTokens },
      [conversations[conversation]],
      toOptions(options[at]),
    )[0];

  it.each(Object.keys(conversations))('renders as transformers: %s', (conversation) => {
    const mine = cases.filter((item) => item.template === name && item.conversation === conversation);
    expect(mine).toHaveLength(options.length);
    for (const item of mine) {
      if (typeof item.expected === 'string') expect(render(item)).toBe(item.expected);
      else expect(() => render(item)).toThrow(ConfigError);
    }
  });
});
