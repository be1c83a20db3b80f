/* Darknet's functions with plain arrays in and out, for make_darknet_golden.py. */
#include <stdio.h>
#include <string.h>
#include "darknet.h"

/* In place of draw_detections in `yolo test`: class, score, and centre and size in images. */
void write_detections(detection *dets, int total, int classes)
{
    FILE *file = fopen("detections.txt", "w");
    for (int i = 0; i < total; ++i) {
        box b = dets[i].bbox;
        for (int j = 0; j < classes; ++j) {
            if (dets[i].prob[j] == 0) continue;
            fprintf(file, "%d %.9g %.9g %.9g %.9g %.9g\n", j, dets[i].prob[j], b.x, b.y, b.w, b.h);
        }
    }
    fclose(file);
}

/* load_image_color, then resize_image: [3, side, side]. */
void read_resized(char *path, int width, int height, float *pixels)
{
    image original = load_image_color(path, 0, 0);
    image resized = resize_image(original, width, height);
    memcpy(pixels, resized.data, sizeof(float) * width * height * 3);
    free_image(original);
    free_image(resized);
}

/* The output of one image. */
void output_of(network *net, float *pixels, float *output)
{
    set_batch_network(net, 1);
    memcpy(output, network_predict(net, pixels), sizeof(float) * net->outputs);
}

static void set_batch(network *net, float *input, float *truth)
{
    memcpy(net->input, input, sizeof(float) * net->inputs * net->batch);
    memcpy(net->truth, truth, sizeof(float) * net->truths * net->batch);
    net->train = 1;
}

/* `delta` of the last layer for a batch. */
void delta_of(network *net, float *input, float *truth, float *delta)
{
    layer last = net->layers[net->n - 1];
    set_batch(net, input, truth);
    forward_network(net);
    memcpy(delta, last.delta, sizeof(float) * last.outputs * net->batch);
}

/* Forward and backward over a batch; the last of `subdivisions` batches updates the weights. */
void train_on(network *net, float *input, float *truth)
{
    set_batch(net, input, truth);
    train_network_datum(net);
}
