#define _GNU_SOURCE
#include "calls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

static uint64_t token_number, warm_number, plan_number;

static struct planned next_planned(const struct options *options, bool warm)
{
    if (options->plan == NULL)
        return (struct planned){0, (options->first_token + token_number++) % options->token_count};
    token_number++;
    size_t scheduled = options->plan_count - options->plan_warm;
    if (warm && options->plan_warm > 0)
        return options->plan[warm_number++ % options->plan_warm];
    return options->plan[options->plan_warm + plan_number++ % scheduled];
}

struct made make_call(const struct options *options, bool warm)
{
    struct planned planned = {0, 0};
    if (options->token_count > 0)
        planned = next_planned(options, warm);
    const struct template *template = &options->templates[planned.template];
    const char *place = strstr(template->text, TOKEN);
    const char *token = place != NULL ? options->tokens[planned.token] : "";
    size_t inside = strlen(token), before = place != NULL ? (size_t)(place - template->text) : template->length;
    size_t cut = place != NULL ? strlen(TOKEN) : 0, length = template->length - cut + inside;
    char *text = malloc(length + 1);
    memcpy(text, template->text, before);
    memcpy(text + before, token, inside);
    memcpy(text + before + inside, template->text + before + cut, template->length - before - cut);
    text[length] = '\0';
    if (template->varies)
        vary(text, length);
    return (struct made){text, length, template->head_length - cut + inside, template->body, template->after, template->events};
}

uint64_t longest_after(const struct options *options)
{
    uint64_t longest = 0;
    for (size_t at = 0; at < options->template_count; at++)
        longest = options->templates[at].after > longest ? options->templates[at].after : longest;
    return longest;
}

void say_warm(void)
{
    puts("warm");
    fflush(stdout);
}

uint64_t tokens_used(const struct options *options)
{
    if (options->plan == NULL)
        return token_number;
    return plan_number > options->plan_count - options->plan_warm ? options->token_count + 1 : options->token_count;
}
